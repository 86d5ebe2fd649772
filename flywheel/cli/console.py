"""Output of the `flywheel` command: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from math import isfinite
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    from curation.run import Curated

COUNTS = "{input} input = {admitted} admitted + {dropped} dropped + {quarantined} quarantined"
_CLIP = 140  # characters of a long text in a table
_SHORT, _WORD = 14, 24  # characters of a text, and of a word, that stays on one line


# Columns of the arms that a round may have beside its candidate and its control.
_ARMS = {"data": "without RL", "student": "student"}


def effects(round_: Mapping[str, Any]) -> list[str]:
    """What RL and distillation did to the suite's table, in a sentence each; RL and distillation have no control."""
    rates, others, lines = round_["failure_rate"], round_["other_failure_rates"], []
    if before := others.get("data"):
        changed = [f"{c} {_share(before[c])} → {_share(x)}" for c, x in rates.items() if x != before.get(c, x)]
        lines.append(f"RL, on the candidate alone: {', '.join(changed) or 'no failure rate changed'}")
    if student := others.get("student"):
        changed = [f"{c} {_share(rates[c])} → {_share(x)}" for c, x in student.items() if x != rates.get(c, x)]
        judged = "worse than its teacher" if round_["student"]["verdict"] == "REJECT" else "not shown to be worse"
        lines.append(f"student: {judged}; {', '.join(changed) or 'no failure rate changed'}")
    return lines


def shown(summary: Mapping[str, Any]) -> list[str]:
    """What the last round with a remedy showed, in plain words; nothing if no round had one."""
    rounds = {r["round"]: r for r in summary["rounds"]}
    remedied = [r for r in rounds.values() if r["targets"] and r["control_failure_rate"] and r["round"] - 1 in rounds]
    if not remedied:
        return []
    last = remedied[-1]
    before, after, control = (
        rounds[last["round"] - 1]["failure_rate"],
        last["failure_rate"],
        last["control_failure_rate"],
    )
    most = max(last["targets"], key=lambda c: control.get(c, 0.0) - after.get(c, 0.0))
    return [
        f"The failures of round {last['round'] - 1} asked for data in {', '.join(last['targets'])}; "
        f"round {last['round']} trained on samples made for them.",
        f"Failing pictures of {most}: {_share(before.get(most))} before, {_share(after.get(most))} after. "
        f"Trained as long without that data: {_share(control.get(most))}.",
        f"The gate decided {last['verdict']}: {last['reason']}.",
    ]


def next_commands(workspace: str) -> list[tuple[str, str]]:
    """(command, what it shows) to go on with."""
    return [
        (f"flywheel dashboard -w {workspace}", "pictures, cases and rounds in the browser"),
        (f"flywheel cases -w {workspace} --status routed", "what still fails, and why"),
        ("flywheel run --source photos/ --captions captions.jsonl -w mine", "the same on your images"),
    ]


def print_summary(summary: dict[str, Any]) -> None:
    """Print a table per round, the counts, the paths of the results, what was shown and how to go on."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for r in summary["rounds"]:
        control, hidden = r["control_failure_rate"], r["hidden_failure_rate"]
        before: dict[str, float] = next(
            (p["failure_rate"] for p in summary["rounds"] if p["round"] == r["round"] - 1), {}
        )
        table = Table(title=f"Round {r['round']}: {r['verdict']}", title_justify="left")
        others = {_ARMS[arm]: rates for arm, rates in r["other_failure_rates"].items()}
        for name in ("capability", "before", "failure rate", "hidden prompts", "control", *others):
            first = name == "capability"
            table.add_column(name, justify="left" if first else "right", no_wrap=first)
        for capability, rate in r["failure_rate"].items():
            name = f"[bold]{capability}[/] (targeted)" if capability in r["targets"] else capability
            rates = (before.get(capability), rate, *(o.get(capability) for o in (hidden, control, *others.values())))
            table.add_row(name, *map(_share, rates))
        console.print(table)
        for line in effects(r):
            console.print(f"  {line}", highlight=False)
        if r["fixed"] or r["broken"]:
            console.print(f"  fixed {len(r['fixed'])}: {' '.join(r['fixed'])}", highlight=False)
            console.print(f"  broke {len(r['broken'])}: {' '.join(r['broken'])}", highlight=False)
    console.print(f"\n{COUNTS.format(**summary)}", highlight=False)
    for name in ("report", "shards", "checkpoints", "sql"):
        value = summary[name]
        console.print(
            f"{name:>11}  {' '.join(value) if isinstance(value, tuple) else value}", soft_wrap=True, highlight=False
        )
    gib = summary["peak_rss_bytes"] / 2**30
    console.print(f"{'took':>11}  {summary['seconds']:.0f} s, peak memory {gib:.1f} GiB", highlight=False)
    for line in shown(summary):
        console.print(f"[bold]{escape(line)}[/]", highlight=False)
    console.print("\nNext:", highlight=False)
    for command, what in next_commands(summary["workspace"]):
        console.print(f"  {escape(command)}  [dim]# {what}[/]", soft_wrap=True, highlight=False)


def print_curated(curated: Curated, funnel: list[dict[str, Any]]) -> None:
    """Print the rows per filter, the counts, and the path of the shards."""
    print_rows(funnel, as_json=False)
    say(f"{COUNTS.format(**asdict(curated))}; shards: {curated.manifest}")


def print_differences(answer: Mapping[str, Any]) -> None:
    """Print an answer of `curation.policy.what_if`: the changes, then what enters and leaves each stage."""
    for change in answer["changes"]:
        out(f"{change['line']}: {change['before']} → {change['after']}")
    for name, reason in answer["not_configured"].items():
        say(f"not applied: {name} ({reason})")
    total = answer["admitted"]
    out(f"admitted: {total['before']} → {total['after']}, {total['enters']} enter, {total['leaves']} leave")
    moved = [r for r in answer["stages"] if r["enters"] or r["leaves"]]
    if moved:
        ids = {k: [" ".join(i[:12] for i in r[k]) for r in moved] for k in ("entering", "leaving")}
        print_rows([r | {k: v[n] for k, v in ids.items()} for n, r in enumerate(moved)], False)
        print_rows(answer["funnel"], False)


def print_explanation(explanation: Mapping[str, Any]) -> None:
    """Print an answer of `curation.decide.explain`: decision, path through the stages, scores."""
    from rich.console import Console
    from rich.markup import escape
    from rich.padding import Padding

    console = Console(highlight=False, soft_wrap=True)
    scores: dict[str, list[str]]
    for row in explanation["quarantine"]:
        console.print(f"{escape(row['source_uri'])}\n  [bold]quarantined[/]: {escape(row['reason'])}")
    for row in explanation["rows"]:
        stopped = ""
        if row["filter"]:
            score = "" if row["score"] is None else f" {row['score']:.4g}, threshold {row['threshold']:.4g}"
            stopped = f" by {row['filter']}{score}"
        survivor = f" (survivor {row['survivor_uri']})" if row["survivor"] else ""
        reached = f", reached {row['stage_reached']}" if row["stage_reached"] else ""
        console.print(f"{escape(row['source_uri'])}\n  sample {row['sample_id']}")
        console.print(f"  [bold]{row['outcome']}[/]{reached}{stopped}{survivor}")
        console.print(f"  {row['task']}, {row['width']}x{row['height']}, caption: {escape(row['caption'] or '(none)')}")
        for stage in row["stages"]:
            verdict = "passed" if stage["passed"] else f"stopped by {stage['filter']}"
            if not stage["passed"] and stage["score"] is not None:
                verdict += f" ({stage['score']:.4g}, threshold {stage['threshold']:.4g})"
            console.print(f"    {stage['stage']} at {stage['bucket']}: {verdict}")
        scores = {}
        for key, value in row["scores"].items():
            if value is not None:
                scorer, _, name = key.partition(".")
                shown = f"{value:.4g}" if isinstance(value, float) else escape(str(value))
                scores.setdefault(scorer, []).append(f"{name} {shown}")
        for scorer, parts in scores.items():
            console.print(Padding(f"{scorer}: {', '.join(parts)}", (0, 0, 0, 4)), soft_wrap=False)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def print_rows(rows: list[dict[str, Any]], as_json: bool, *, shown: Sequence[str] = ()) -> None:
    """Print a table, or one JSON list.

    shown: the columns that people see; the last one takes the width that is left, and up to a few lines of it.
    Default: all, wrapped where they hold sentences.
    """
    if as_json:
        out(json_text(rows))
        return
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        say("no rows")
        return
    console, names = Console(), list(shown or rows[0])
    cells = {name: ["" if row[name] is None else str(row[name]) for row in rows] for name in names}
    if shown:
        cells[names[-1]] = [text if len(text) <= _CLIP else f"{text[:_CLIP]}…" for text in cells[names[-1]]]
    widths = _widths({name: [name, *texts] for name, texts in cells.items()}, console.width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))  # no bars: more fits
    for name in names:
        number = all(type(row[name]) in (int, float, NoneType) for row in rows)
        justify: Literal["left", "right"] = "right" if number else "left"
        table.add_column(name, overflow="fold", justify=justify, width=widths.get(name))
    for line in zip(*cells.values()):
        table.add_row(*map(escape, line))
    console.print(table)


def _widths(texts: Mapping[str, Sequence[str]], room: int) -> dict[str, int]:
    """Characters of each column, two apart: short texts and words whole, and what is left by need.

    Where that does not fit, whole words; where these do not fit, no widths, so that words are broken.
    """
    from rich.cells import cell_len

    full = {name: max(map(cell_len, column)) for name, column in texts.items()}
    for short in (_SHORT, 0):
        kept = {
            n: [t for x in column for t in ([x] if cell_len(x) <= short else x.split())] for n, column in texts.items()
        }
        least = {name: max((w for w in map(cell_len, kept[name]) if w <= _WORD), default=1) for name in texts}
        left, need = room - 2 * (len(texts) - 1) - sum(least.values()), sum(full.values()) - sum(least.values())
        if need <= left:
            return full
        if left >= 0:
            return {name: least[name] + left * (full[name] - least[name]) // need for name in texts}
    return {}


def of_first_process() -> bool:
    """Is this the first of the processes that torchrun started, or the only one? It prints the result."""
    return not int(os.environ.get("RANK", "0"))


def json_text(value: object, *, indent: int | None = None) -> str:
    """The value as JSON that every reader takes: null for NaN and infinities, which JSON lacks, and text for dates."""
    return json.dumps(_plain(value), ensure_ascii=False, default=str, allow_nan=False, indent=indent)


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        value = int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def out(text: str) -> None:
    """Print data, on stdout."""
    typer.echo(text)


def say(text: str) -> None:
    """Print a message, on stderr."""
    typer.echo(text, err=True)
