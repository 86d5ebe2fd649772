"""What would change: two policies on the scores that are there. No image is read and nothing is written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curation import sql
from curation.decide import APPLIED, Evaluation, Judged, judge
from curation.pipeline import configure
from curation.policy import Policy, load_policy
from flywheel.workspace import UsageError, Workspace, read_json

if TYPE_CHECKING:
    import duckdb

EXAMPLES = 5  # sample ids shown of those that enter and of those that leave, the smallest first


@dataclass(frozen=True)
class Basis:
    """What a question is asked against: a policy, and what evaluation keeps out of training."""

    policy: Policy
    evaluation: Evaluation = Evaluation()


def basis(workspace: Workspace, snapshot: str | None, policy: str | None = None) -> Basis:
    """The policy and evaluation of a snapshot; `policy`, where given, replaces its policy.

    Errors: `UsageError` where there is neither.
    """
    if snapshot is None:
        if policy is None:
            raise UsageError("nothing has been curated in this workspace yet: run `flywheel run` first")
        return Basis(load_policy(policy))
    folder = workspace.path("snapshots", snapshot)
    if not (folder / "policy.json").exists():
        raise UsageError(f"snapshot {snapshot} was written before policies were kept with it: curate the pool again")
    kept = read_json(folder / "evaluation.json")
    evaluation = Evaluation(frozenset(kept["held_out"]), frozenset(kept["prompts"]))
    return Basis(load_policy(policy) if policy else Policy.from_record(read_json(folder / "policy.json")), evaluation)


def parse_settings(settings: Iterable[str]) -> dict[str, float]:
    """`["S4.aesthetic.min=5.0"]` as {path: number}. Errors: `UsageError`."""
    out: dict[str, float] = {}
    for text in settings:
        path, equals, number = (part.strip() for part in text.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not path or not equals or not math.isfinite(value):
            raise UsageError(f"cannot read --set {text!r}: write STAGE.FILTER.BOUND=NUMBER, as in S4.aesthetic.min=5.0")
        out[path] = value
    return out


def with_settings(policy: Policy, settings: Mapping[str, float]) -> Policy:
    """The policy with every setting replaced; bounds that cross only until the last one is set are no error."""
    for path, value in _widening_first(policy, settings):
        policy = policy.replace(path, value)
    return policy


def _widening_first(policy: Policy, settings: Mapping[str, float]) -> list[tuple[str, float]]:
    """A raised max before a raised min, so that moving a whole range never passes through an empty one."""

    def narrows(item: tuple[str, float]) -> bool:
        path, value = item
        old = policy.number(path)
        return old is None or (value > old if path.endswith(".min") else value < old)

    return sorted(settings.items(), key=narrows)


def what_if(workspace: Workspace, base: Basis, changed: Policy, *, examples: int = EXAMPLES) -> dict[str, Any]:
    """What enters and what leaves each stage and bucket when `changed` takes the place of `base.policy`.

    Returns {changes, not_configured, admitted, stages, funnel}: `admitted` and each row of `stages` count the samples
    before and after, those that enter and leave, and name some; `funnel` holds the filters whose counts differ.
    Errors: `UsageError` where scores are missing.
    """
    scorers, reasons = configure(base.policy)
    more, more_reasons = configure(changed)
    before = judge(workspace, base.policy, scorers, base.evaluation)
    after = judge(workspace, changed, more, base.evaluation)
    return {
        "changes": changes(base.policy, changed),
        "not_configured": reasons | more_reasons,
        **_moves(before, after, _cells(base.policy, changed), examples),
        "funnel": _funnel(before, after),
    }


def changes(a: Policy, b: Policy) -> list[dict[str, Any]]:
    """Every line that differs between two policies: path, value in `a`, value in `b` (None: not there), in order."""
    left, right = _lines(a), _lines(b)
    return [
        {"line": path, "before": left.get(path), "after": right.get(path)}
        for path in dict.fromkeys([*left, *right])
        if left.get(path) != right.get(path)
    ]


def lines(policy: Policy) -> list[dict[str, Any]]:
    """A policy as a table: one row per filter in the order in which they act, with what it reads and its bounds."""
    return [
        {
            "stage": stage.name,
            "buckets": " ".join(str(b) for b in stage.resolutions if f.applies_to(b)),
            "streams": " ".join(f.streams) or "all",
            "filter": f.name,
            "reads": f.score or f.check,
            "min": f.min,
            "max": f.max,
            "options": _options(f),
        }
        for stage in policy.stages
        for f in stage.filters
    ]


def _options(line: Any) -> str:
    given = {"duplicates": ("hamming", "colour"), "balance": ("per", "cap")}.get(line.check, ())
    return ", ".join(f"{k} {getattr(line, k)}" for k in given)


def _lines(policy: Policy) -> dict[str, Any]:
    """Dotted path → value of everything that decides. The place of a filter in its stage decides too."""
    out: dict[str, Any] = {}
    for stage in policy.record()["stages"]:
        at = stage["name"]
        out[f"{at}.resolutions"], out[f"{at}.enters"] = stage["resolutions"], stage["enters"]
        out[f"{at}.order"] = [f["name"] for f in stage["filters"]]
        for f in stage["filters"]:
            out |= {f"{at}.{f['name']}.{k}": v for k, v in f.items() if k != "name" and v not in (None, [], 0)}
    for name, options in policy.record()["scorers"].items():
        out |= {f"scorers.{name}.{k}": v for k, v in options.items()}
    return out


# Counting ------------------------------------------------------------------------------------------------------------
def _cells(*policies: Policy) -> list[tuple[str, int]]:
    """(stage, bucket) of every policy, in order."""
    return sorted({(stage.name, bucket) for policy in policies for stage, bucket, _ in sql.cells(policy)})


def _moves(before: Judged, after: Judged, cells: list[tuple[str, int]], examples: int) -> dict[str, Any]:
    import duckdb

    with duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}) as con:
        for name, judged in (("before", before), ("after", after)):
            con.register(f"{name}_stages", judged.stages)
            con.register(f"{name}_decisions", judged.decisions)
        admitted = "SELECT '' AS stage, 0 AS bucket, shard, row, sample_id FROM {}_decisions WHERE outcome = 'admitted'"
        (total,) = _compared(con, admitted, examples) or [_nothing()]
        passed = "SELECT stage, bucket, shard, row, sample_id FROM {}_stages WHERE passed"
        found = {(r["stage"], r["bucket"]): r for r in _compared(con, passed, examples)}
    empty = _nothing()
    return {
        "admitted": {k: v for k, v in total.items() if k not in ("stage", "bucket")},
        "stages": [found.get(cell, {"stage": cell[0], "bucket": cell[1]} | empty) for cell in cells],
    }


def _nothing() -> dict[str, Any]:
    return {"before": 0, "after": 0, "enters": 0, "leaves": 0, "entering": [], "leaving": []}


def _compared(con: duckdb.DuckDBPyConnection, query: str, examples: int) -> list[dict[str, Any]]:
    """One row per (stage, bucket): counts of both sides, what only the one or the other has, and the first few ids."""
    in_before, in_after = "b.row IS NOT NULL", "a.row IS NOT NULL"

    def first(condition: str) -> str:
        return f"coalesce(min(sample_id, {examples}) FILTER ({condition}), [])"

    rows = con.sql(
        f"""SELECT stage, bucket,
               count(*) FILTER ({in_before}) AS before, count(*) FILTER ({in_after}) AS after,
               count(*) FILTER (NOT {in_before}) AS enters, count(*) FILTER (NOT {in_after}) AS leaves,
               {first(f"NOT ({in_before})")} AS entering, {first(f"NOT ({in_after})")} AS leaving
            FROM ({query.format("before")}) AS b FULL JOIN ({query.format("after")}) AS a
                 USING (stage, bucket, shard, row, sample_id)
            GROUP BY stage, bucket"""
    )
    return rows.to_arrow_table().to_pylist()


def _funnel(before: Judged, after: Judged) -> list[dict[str, Any]]:
    """Filters whose entered, dropped or status differ, with both sides; a filter that one side lacks has None there."""
    sides = [{(r["stage"], r["bucket"], r["filter"]): r for r in j.funnel.to_pylist()} for j in (before, after)]
    out = []
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        old, new = (side.get(key) for side in sides)
        if old == new:
            continue
        both = (("before", old), ("after", new))
        counts = {f"{k}_{when}": r and r[k] for k in ("entered", "dropped") for when, r in both}
        applied = (new or old)["status"] == APPLIED
        out.append({"stage": key[0], "bucket": key[1], "filter": key[2], "applied": applied} | counts)
    return out
