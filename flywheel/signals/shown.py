"""A suite as `flywheel suite show` prints it: prompts by group, and how well their checks separate."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from flywheel.signals.calibration import Kind, Separation, load_separations
from flywheel.signals.pinned import load_any

_NAMES = ("benchmark", "group", "task", "verifiers", "capabilities")


def groups(file: Path) -> list[dict[str, Any]]:
    """Rows {benchmark, group, task, verifiers, capabilities, prompts, checks}; left-out checks have 0 prompts.

    `checks`: rows {check, prompts, own, null, share, left_out}: `own` is the share of true pictures that pass, `share`
    that of the worst `null`; empty for a suite that was not calibrated. Errors: `UsageError`.
    """
    separations = load_separations(file)
    counts: Counter[tuple[str, str, str, tuple[Kind, ...]]] = Counter()
    for p in load_any(file):
        kinds = {Kind(c["verifier"], c["capability"], p.task) for c in p.checks}
        counts[p.benchmark, p.category, p.task, tuple(sorted(kinds))] += 1
    for left_out in (s for s in separations if s.left_out):
        counts["", "", left_out.task, (_kind(left_out),)] = 0
    return [
        dict(zip(_NAMES, (*key[:3], _joined(k.verifier for k in key[3]), _joined(k.capability for k in key[3]))))
        | {"prompts": number, "checks": [_rates(s) for s in separations if _kind(s) in key[3]]}
        for key, number in sorted(counts.items())
    ]


def _rates(check: Separation) -> dict[str, Any]:
    null, share = check.worst
    own = None if check.own is None else round(check.own, 4)
    return {
        "check": check.name,
        "prompts": check.prompts,
        "own": own,
        "null": null,
        "share": round(share, 4),
        "nulls": {name: round(rate, 4) for name, rate in check.nulls.items()},
        "left_out": check.left_out,
    }


def _kind(check: Separation) -> Kind:
    return Kind(check.verifier, check.capability, check.task)


def _joined(names: Any) -> str:
    return " ".join(sorted(set(names)))
