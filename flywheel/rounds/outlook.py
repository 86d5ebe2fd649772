"""Where a workspace stands and what its next round would be: status, proposal with costs, comparison of two rounds."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from flywheel.cases import fold
from flywheel.cases.events import case_id, load_cases
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from flywheel.core.ledger import Ledger
from flywheel.core.lens import latest_snapshot
from flywheel.core.progress import Progress
from flywheel.core.records import RoundPlan
from flywheel.core.workspace import Workspace
from flywheel.presets import load_preset
from flywheel.remedies.review import Queue
from flywheel.remedies.review import status as review_status
from flywheel.rounds import lease, steps
from flywheel.rounds.costs import estimate, rates
from flywheel.rounds.promotion import load_history
from flywheel.signals.results import failure_rates, load_results

_PINNED = ("snapshot", "policy", "code", "preset", "recipe", "steps", "seed", "suites", "incumbent", "targets")


def next_round(workspace: Workspace) -> int:
    """Number of the round that is to be planned or finished next."""
    routed = Ledger(workspace, "case_events")
    done = [r["round"] for r in Ledger(workspace, "rounds").rows() if routed.has(f"route/{r['round']}")]
    return max(done, default=0) + 1


def plan_next(workspace: Workspace, *, pin: bool) -> dict[str, Any]:
    """{"plan", "cost", "pinned"}: the next round's plan, pinned when asked for, and its cost at measured rates.

    Errors: `UsageError` before the first curation, and, when it is to be pinned, while a run is working.
    """
    job, number, snapshot = lease.last_job(workspace), next_round(workspace), latest_snapshot(workspace)
    if snapshot is None:
        raise UsageError("nothing has been curated in this workspace yet: `flywheel run` does that first")
    context = steps.Context(workspace, job, load_preset(job.preset), Progress())
    path = workspace.round(number).plan
    if path.exists():
        plan = RoundPlan.read(path)
    elif pin:
        with lease.hold(workspace, job):
            plan = steps.plan(context, number, snapshot)
    else:
        plan = steps.propose(context, number, snapshot)
    review = context.preset.review
    unattended = job.auto_approve or review.auto_approve
    cost = estimate(
        plan,
        rates(Ledger(workspace, "costs").rows()),
        prompts=len(context.suite),
        review_seconds=review.seconds,
        reviews=0 if unattended else review.reviews,
    )
    return {"plan": plan.as_dict(), "cost": cost, "pinned": path.exists()}


def status(workspace: Workspace) -> dict[str, Any]:
    """Who runs, which checkpoint is in service, what waits, and every round's verdict with later decisions."""
    number, run = next_round(workspace), lease.running(workspace)
    costs, history = Ledger(workspace, "costs").rows(), load_history(workspace)
    decisions = Ledger(workspace, "promotions").rows()
    with closing(fold.connect(workspace)) as con:
        cases = dict(con.execute("SELECT status, count(*) FROM cases GROUP BY status").fetchall())
    return {
        "running": run and {k: run[k] for k in ("host", "pid", "at")},
        "last_step": {k: costs[-1][k] for k in ("round", "step", "at")} if costs else None,
        "incumbent": history[-1].checkpoint if history else None,
        "promoted": [p.round for p in history],
        "next_round": number,
        "planned": workspace.round(number).plan.exists(),
        "review": review_status(Queue(workspace).items(number).values()),
        "cases": dict(sorted(cases.items())),
        "rounds": [
            {k: r[k] for k in ("round", "verdict", "checkpoint", "incumbent", "at")}
            | {"decisions": [{k: d[k] for k in ("kind", "by", "why")} for d in decisions if d["round"] == r["round"]]}
            for r in Ledger(workspace, "rounds").rows()
        ],
    }


def compare(workspace: Workspace, a: int, b: int) -> dict[str, Any]:
    """What differs between two rounds: pinned inputs, remedy data, failure rates, cases. Errors: `UsageError`."""
    rounds = {r["round"]: r for r in Ledger(workspace, "rounds").rows()}
    for n in (a, b):
        if n not in rounds:
            raise UsageError(f"round {n} has no verdict yet: `flywheel rounds` lists those that have one")
    plans = [RoundPlan.read(workspace.round(n).plan).as_dict() for n in (a, b)]
    seen = [load_results(workspace, n, "candidate") for n in (a, b)]
    shared = sorted(seen[0].keys() & seen[1].keys())
    known = load_cases(workspace)

    def changed(before: bool) -> list[dict[str, Any]]:
        found = [(case_id(*k), k) for k in shared if seen[0][k] is before and seen[1][k] is not before]
        return [
            {"case": c, "capability": k[1], "prompt_id": k[0], "track": known[c].track if c in known else None}
            for c, k in found
        ]

    rate = [failure_rates(s) for s in seen]
    return {
        "pins": [
            {"what": k, "a": plans[0].get(k), "b": plans[1].get(k)}
            for k in _PINNED
            if plans[0].get(k) != plans[1].get(k)
        ],
        "data": [
            {"round": n, "capability": c, **counts} for n in (a, b) for c, counts in _remedies(workspace, n).items()
        ],
        "rates": [
            {"capability": c, "a": rate[0].get(c), "b": rate[1].get(c)} for c in sorted(rate[0].keys() | rate[1].keys())
        ],
        "verdicts": {str(n): rounds[n]["verdict"] for n in (a, b)},
        "fixed": changed(False),
        "broken": changed(True),
    }


def _remedies(workspace: Workspace, number: int) -> dict[str, dict[str, int]]:
    path = workspace.round(number).remedy_counts
    return read_json(path) if path.exists() else {}
