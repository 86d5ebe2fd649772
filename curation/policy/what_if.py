"""What would change: two policies applied to the existing scores. No image is read and nothing is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow.compute as pc

from curation.decide.judge import APPLIED, Verdicts, verdicts
from curation.decide.judging import HeldOut, sample_ids
from curation.policy import sql
from curation.policy.policy import CHECKS, GROUPS, Filter, Policy
from curation.policy.reader import load_policy
from curation.run import configure
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from flywheel.core.workspace import Workspace

EXAMPLES = 5  # sample ids shown of those that enter and those that leave, in pool order


@dataclass(frozen=True)
class Basis:
    """What changes are compared with: a policy, and what is held out of training."""

    policy: Policy
    held_out: HeldOut = HeldOut()


def basis(workspace: Workspace, snapshot: str | None, policy: str | None = None) -> Basis:
    """The policy and held-out data of a snapshot; `policy`, if given, replaces its policy.

    Errors: `UsageError` when there is neither.
    """
    if snapshot is None:
        if policy is None:
            raise UsageError("nothing has been curated in this workspace yet: run `flywheel run` first")
        return Basis(load_policy(policy))
    folder = workspace.path("snapshots", snapshot)
    if not (folder / "policy.json").exists():
        raise UsageError(f"snapshot {snapshot} was written before policies were kept with it: curate the pool again")
    held_out = HeldOut.from_record(read_json(folder / "evaluation.json"))
    return Basis(load_policy(policy) if policy else Policy.from_record(read_json(folder / "policy.json")), held_out)


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
    """The policy with every setting replaced; bounds may cross until the last one is set."""
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
    """What enters and leaves each stage and bucket when `changed` replaces `base.policy`.

    Returns {changes, not_configured, admitted, stages, funnel}: `admitted` and each row of `stages` count the samples
    before and after and those that enter and leave, and list the first few; `funnel` has the filters whose counts
    differ. Errors: `UsageError` when scores are missing.
    """
    scorers, reasons = configure(base.policy)
    more, more_reasons = configure(changed)
    before = verdicts(workspace, base.policy, scorers, base.held_out)
    after = verdicts(workspace, changed, more, base.held_out)
    return {
        "changes": changes(base.policy, changed),
        "not_configured": reasons | more_reasons,
        **_moves(before, after, _cells(base.policy, changed), partial(sample_ids, workspace, scorers), examples),
        "funnel": _funnel(before, after),
    }


def changes(a: Policy, b: Policy) -> list[dict[str, Any]]:
    """Every setting that differs between two policies: path, value in `a`, value in `b` (None: absent), in order."""
    left, right = _settings(a), _settings(b)
    return [
        {"line": path, "before": left.get(path), "after": right.get(path)}
        for path in dict.fromkeys([*left, *right])
        if left.get(path) != right.get(path)
    ]


def lines(policy: Policy) -> list[dict[str, Any]]:
    """A policy as a table: one row per filter in the order in which filters act, with what it reads and its bounds."""
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


def _options(filter_: Filter) -> str:
    needed, optional = CHECKS.get(filter_.check or "", ((), ()))
    options = {k: v for k in (*needed, *optional) if (v := getattr(filter_, k)) not in (None, ())}
    if filter_.references:
        return "references too"
    groups = {k: dict(v) if k in GROUPS else " ".join(v) for k, v in options.items() if isinstance(v, tuple)}
    return ", ".join(f"{k} {v}" for k, v in (options | groups).items())


def _settings(policy: Policy) -> dict[str, Any]:
    """Dotted path → value of everything that affects a decision, including the order of filters in a stage."""
    out: dict[str, Any] = {}
    for stage, record in zip(policy.stages, policy.record()["stages"]):
        at = stage.name
        out[f"{at}.resolutions"], out[f"{at}.enters"] = record["resolutions"], record["enters"]
        out[f"{at}.order"] = [f.name for f in stage.filters]
        for f, values in zip(stage.filters, record["filters"]):
            said = {k: v for k, v in values.items() if v not in (None, [], 0) or (v == 0 and k in f.bounds)}
            out |= {f"{at}.{f.name}.{k}": v for k, v in said.items() if k != "name"}
    out["evaluation.prompt_similarity"] = policy.prompt_similarity
    for name, options in policy.record()["scorers"].items():
        out |= {f"scorers.{name}.{k}": v for k, v in options.items()}
    return out


# Counting ------------------------------------------------------------------------------------------------------------
def _cells(*policies: Policy) -> list[tuple[str, int]]:
    """(stage, bucket) of every policy, in order."""
    return sorted({(stage.name, bucket) for policy in policies for stage, bucket, _ in sql.cells(policy)})


Names = Callable[[np.ndarray], list[str]]  # places in the pool → sample ids


def _moves(
    before: Verdicts, after: Verdicts, cells: list[tuple[str, int]], names: Names, examples: int
) -> dict[str, Any]:
    stages, old_any, new_any = [], np.zeros(before.rows, bool), np.zeros(before.rows, bool)
    for stage, bucket in cells:
        old, new = (_passed(v, sql.cell(stage, bucket)) for v in (before, after))
        old_any, new_any = old_any | old, new_any | new
        stages.append({"stage": stage, "bucket": bucket} | _compared(old, new, names, examples))
    return {"admitted": _compared(old_any, new_any, names, examples), "stages": stages}


def _passed(verdicts: Verdicts, cell: str) -> np.ndarray:
    """Which rows of the pool pass this stage and bucket: bool [rows]."""
    out = np.zeros(verdicts.rows, bool)
    if cell in verdicts.cells.column_names:
        passes = pc.fill_null(pc.equal(verdicts.cells[cell], 0), False)
        out[verdicts.cells["n"].to_numpy()] = passes.to_numpy()
    return out


def _compared(old: np.ndarray, new: np.ndarray, names: Names, examples: int) -> dict[str, Any]:
    enters, leaves = np.flatnonzero(new & ~old), np.flatnonzero(old & ~new)
    return {
        "before": int(old.sum()),
        "after": int(new.sum()),
        "enters": len(enters),
        "leaves": len(leaves),
        "entering": names(enters[:examples]),
        "leaving": names(leaves[:examples]),
    }


def _funnel(before: Verdicts, after: Verdicts) -> list[dict[str, Any]]:
    """Filters whose entered, dropped or status differ, with both sides; None where one side lacks the filter."""
    sides = [{(r["stage"], r["bucket"], r["filter"]): r for r in j.funnel.to_pylist()} for j in (before, after)]
    out = []
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        old, new = (side.get(key) for side in sides)
        latest = new or old
        if old == new or latest is None:
            continue
        both = (("before", old), ("after", new))
        counts = {f"{k}_{when}": r and r[k] for k in ("entered", "dropped") for when, r in both}
        where = {"stage": key[0], "bucket": key[1], "filter": key[2]}
        out.append(where | {"applied": latest["status"] == APPLIED} | counts)
    return out
