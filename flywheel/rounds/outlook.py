"""Status of a workspace, the plan and cost of its next round, and the comparison of two rounds."""

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
from flywheel.rounds import lease, power, steps, systems
from flywheel.rounds.context import Context
from flywheel.rounds.costs import estimate, listed, rates
from flywheel.rounds.promotion import load_history
from flywheel.rounds.stages import curriculum_of
from flywheel.signals.results import failure_rates, load_results, passes

_PINNED = ("snapshot", "policy", "code", "preset", "recipe", "steps", "seed", "suites", "incumbent", "targets")


def next_round(workspace: Workspace) -> int:
    """Number of the round to plan or finish next."""
    routed = Ledger(workspace, "case_events")
    done = [r["round"] for r in Ledger(workspace, "rounds").rows() if routed.has(f"route/{r['round']}")]
    return max(done, default=0) + 1


def plan_next(workspace: Workspace, *, pin: bool) -> dict[str, Any]:
    """{"plan", "steps", "stages", "stages_left_out", "cost", "pinned", "detectable"}: the next round's plan, its steps
    by track, the stages of its data phase, and its cost at measured rates.


    pin: write the plan; detectable: what the suite can show about the candidate (`flywheel.rounds.power.Outlook`).
    Errors: `UsageError` before the first curation, and if a plan has to be written while a run is working.
    """
    job, number, snapshot = lease.last_job(workspace), next_round(workspace), latest_snapshot(workspace)
    if snapshot is None:
        raise UsageError("this workspace has no snapshot yet: create one with `flywheel run` or `flywheel curate`")
    context = Context(workspace, job, load_preset(job.preset), Progress())
    path = workspace.round(number).plan
    if path.exists():
        plan = RoundPlan.read(path)
    elif pin:
        with lease.hold(workspace, job):
            workspace.upgrade()
            plan = steps.plan(context, number, snapshot)
    else:
        plan = steps.propose(context, number, snapshot)
    review, known = context.preset.review, rates(Ledger(workspace, "costs").rows())
    unattended = job.auto_approve or review.auto_approve
    cost = estimate(
        plan,
        known,
        images=context.images,
        prompts=len(context.suite),
        review_seconds=review.seconds,
        reviews=0 if unattended else review.reviews,
    )
    curriculum = curriculum_of(workspace, plan)
    return {
        "plan": plan.as_dict(),
        "steps": listed(plan, known),
        "stages": [turn.as_dict() for turn in curriculum.turns],
        "stages_left_out": list(curriculum.notes),
        "cost": cost,
        "pinned": path.exists(),
        "detectable": _detectable(context, plan).as_dict(),
    }


def _detectable(context: Context, plan: RoundPlan) -> power.Outlook:
    """What the suite can show; nothing without an incumbent, as its first candidate is promoted."""
    incumbent, earlier = steps.references(context, plan)
    if incumbent is None:
        return power.Outlook((), ())
    return power.outlook(
        incumbent,
        earlier=earlier,
        targets=plan.targets,
        policy=context.preset.gate,
        pictures=context.preset.evaluation.pictures,
    )


def status(workspace: Workspace) -> dict[str, Any]:
    """The current run, the incumbent, what waits for review, and each round's verdict with later decisions."""
    number, run = next_round(workspace), lease.running(workspace)
    costs, history = Ledger(workspace, "costs").rows(), load_history(workspace)
    decisions = Ledger(workspace, "promotions").rows()
    with closing(fold.connect(workspace)) as con:
        cases = dict(con.execute("SELECT status, count(*) FROM cases GROUP BY status").fetchall())
    return {
        "running": run and {k: run[k] for k in ("host", "pid", "at")},
        "last_step": {k: costs[-1][k] for k in ("round", "step", "at")} if costs else None,
        "incumbent": history[-1].checkpoint if history else None,
        "system": systems.read(workspace, history[-1].round).as_dict() if history else None,
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
    """Differences between two rounds: pinned inputs, remedy data, failure rates, cases. Errors: `UsageError`."""
    rounds = {r["round"]: r for r in Ledger(workspace, "rounds").rows()}
    for n in (a, b):
        if n not in rounds:
            raise UsageError(f"round {n} has no verdict yet: `flywheel round list` lists those that have one")
    plans = [RoundPlan.read(workspace.round(n).plan).as_dict() for n in (a, b)]
    results = [load_results(workspace, n, "candidate") for n in (a, b)]
    shared = sorted(results[0].keys() & results[1].keys())
    cases = load_cases(workspace)

    def changed(before: bool) -> list[dict[str, Any]]:
        keys = {case_id(*k): k for k in shared if passes(results[0][k]) is before is not passes(results[1][k])}
        return [
            {"case": c, "capability": k[1], "prompt_id": k[0], "track": cases[c].track if c in cases else None}
            for c, k in keys.items()
        ]

    rate = [failure_rates(r) for r in results]
    return {
        "pins": [
            {"what": k, "a": plans[0].get(k), "b": plans[1].get(k)}
            for k in _PINNED
            if plans[0].get(k) != plans[1].get(k)
        ]
        + _different_systems(workspace, a, b),
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


def _different_systems(workspace: Workspace, a: int, b: int) -> list[dict[str, Any]]:
    """What differs between the systems of two rounds, beside their checkpoints."""
    first, second = (systems.read(workspace, n).as_dict() for n in (a, b))
    names = ("generator", "enhancer", "side", "steps", "cfg", "schedule", "student")
    return [{"what": f"system {k}", "a": first[k], "b": second[k]} for k in names if first[k] != second[k]]


def _remedies(workspace: Workspace, number: int) -> dict[str, dict[str, int]]:
    path = workspace.round(number).remedy_counts
    return read_json(path) if path.exists() else {}
