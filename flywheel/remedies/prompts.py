"""Prompts for reinforcement learning and distillation: new prompts of a capability, each with its checks.

The prompt of a case is in the held-out suite and must not be trained on: new prompts of its capability are made.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from curation.synthesis import draw, generators
from flywheel.cases.events import Case
from flywheel.core.errors import UsageError
from flywheel.core.files import digest, write_bytes
from flywheel.core.records import Manifest
from flywheel.core.workspace import Workspace
from flywheel.remedies.held_out import HeldOut
from flywheel.remedies.retrieval import captions, rows_of
from flywheel.signals.suite import Prompt, write_rows


def rl_capabilities(cases: Sequence[Case]) -> list[str]:
    """Capabilities with open cases on the RL track and a generator of prompts, most cases first.

    Errors: `UsageError` if there is none.
    """
    counts: dict[str, int] = {}
    for case in cases:
        if case.is_open and case.track == "rl":
            counts[case.capability] = counts.get(case.capability, 0) + 1
    served = [c for c in sorted(counts, key=lambda c: (-counts[c], c)) if c in generators()]
    if not served:
        raise UsageError(
            f"no open case on the RL track has a capability with a prompt generator ({', '.join(generators())}): "
            "choose some with --capability"
        )
    return served


def rl_remedy(workspace: Workspace, round_: int | None) -> Path:
    """Folder of a round's RL remedy (`flywheel.remedies.reward_policy`); of the latest one if `round_` is None.

    Errors: `UsageError` if there is none.
    """
    rounds = workspace.remedies() if round_ is None else [workspace.round(round_).remedies]
    folders = [folder / "rl" for folder in rounds if (folder / "rl" / "rewards.json").exists()]
    if not folders:
        which = "" if round_ is None else f" of round {round_}"
        raise UsageError(
            f"{workspace.root} has no RL remedy{which}: a round writes one for open cases on the RL track; or write "
            "prompts with `flywheel rl prompts` and pass them with --prompts"
        )
    return folders[-1]


def hold_out(prompts: Sequence[Prompt], count: int) -> tuple[list[Prompt], list[Prompt]]:
    """(prompts to train on, prompts to watch): up to `count` and at most a quarter are watched, evenly spaced."""
    from training.prompts import spread

    watched = spread(prompts, min(count, len(prompts) // 4))
    texts = {p.text for p in watched}
    return [p for p in prompts if p.text not in texts], watched


def fresh_prompts(
    capability: str, count: int, folder: Path, held_out: HeldOut, *, seed: str
) -> Iterator[dict[str, Any]]:
    """Up to `count` suite rows for a capability with a generator; reference pictures are written below `folder`.

    No row repeats another, says or nearly says a held-out prompt, or shows what one means: a capability with few
    variants gets fewer rows. Checks of the capability come first: they decide the prompt's category.
    """
    recipes = [make() for make in generators()[capability]]
    stream = draw(recipes, seed=f"{seed}/{capability}", exclude=frozenset(held_out.prompts))
    drawn: set[tuple[Any, ...]] = set()
    for sample in itertools.islice(stream, 4 * count):
        key = (sample.caption, sample.references)
        if key in drawn or not any(c["capability"] == capability for c in sample.checks):
            continue
        if len(drawn) == count:
            return
        if held_out.near(sample.caption):
            continue
        drawn.add(key)
        row = prompt_row(capability, len(drawn), sample.caption, sample.task, sample.checks)
        for number, reference in enumerate(sample.references):
            row["references"].append(f"references/{row['prompt_id']}-{number}.png")
            write_bytes(folder / row["references"][-1], reference)
        yield row


def prompt_row(
    capability: str, number: int, prompt: str, task: str, checks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A suite row for RL, without references; checks of `capability` first."""
    own_first = sorted(checks, key=lambda c: c["capability"] != capability)
    row = {"prompt_id": f"rl-{capability}-{number:04d}", "prompt": prompt, "task": task, "category": capability}
    return row | {"references": [], "checks": own_first}


def write_prompts(
    path: Path, capabilities: Sequence[str], count: int, *, seed: int, exclude: Iterable[str]
) -> dict[str, int]:
    """Write up to `count` prompts per capability as a suite file; returns {capability: prompts written}.

    exclude: evaluation prompts. Errors: `UsageError` for a capability without a generator.
    """
    rows: list[dict[str, Any]] = []
    counts, held_out = {}, HeldOut(exclude)
    for capability in dict.fromkeys(capabilities):
        if capability not in generators():
            raise UsageError(f"no generator serves {capability!r}: choose from {', '.join(generators())}")
        prompts = list(fresh_prompts(capability, count, path.parent, held_out, seed=f"{seed}/prompts"))
        rows += prompts
        counts[capability] = len(prompts)
    write_rows(path, rows)
    return counts


def pool_prompts(manifest: Path, path: Path, count: int, held_out: HeldOut, *, seed: int) -> Path:
    """Write up to `count` prompts of the pool without checks as a suite file: half are edits, if there are as many.

    Samples are chosen by a keyed hash of their id, in the smallest bucket; reference pictures are written beside the
    file. No prompt says or nearly says a held-out one.
    """
    side = min(f.bucket for f in Manifest.read(manifest).files)
    named = {"t2i": captions(manifest, side, "t2i"), "ti2i": captions(manifest, side, "ti2i")}
    edits = min(count // 2, len(named["ti2i"]))
    rows: list[dict[str, Any]] = []
    for task, wanted in (("ti2i", edits), ("t2i", count - edits)):
        texts = dict(named[task])
        order = sorted(texts, key=lambda i: digest(seed, "distil", i))
        chosen = list(itertools.islice((i for i in order if texts[i] and not held_out.near(texts[i])), wanted))
        pictures = rows_of(manifest, chosen, side) if task == "ti2i" else {}
        for identity in chosen:
            shown = pictures[identity]["references"] if pictures else []
            names = [f"references/{identity[:16]}-{number}.png" for number in range(len(shown))]
            for name, reference in zip(names, shown):
                write_bytes(path.parent / name, reference)
            row = {"prompt_id": f"pool-{identity[:16]}", "prompt": texts[identity], "task": task}
            rows.append(row | {"references": names, "checks": []})
    return write_rows(path, rows)
