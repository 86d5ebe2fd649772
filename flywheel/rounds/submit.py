"""A submitted candidate: a generator made by hand, by RL or by distillation, evaluated and gated as a round's own."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

from flywheel.cases.events import load_cases
from flywheel.core.errors import UsageError
from flywheel.core.lens import latest_snapshot
from flywheel.core.mirror import mirror
from flywheel.core.progress import Progress
from flywheel.core.records import Remedy, RoundPlan, Submission
from flywheel.core.workspace import Workspace
from flywheel.generators import describe
from flywheel.presets import load_preset
from flywheel.rounds import lease, pool, promotion, steps
from flywheel.rounds.context import Context
from flywheel.rounds.outlook import next_round
from flywheel.rounds.taken_in import keep, require_drawing


def submit(workspace: Workspace, checkpoint: Path, *, by: str, why: str) -> RoundPlan:
    """Make a generator the candidate of the next round, and pin that round's plan; running the round judges it.

    checkpoint: folder of a checkpoint, of a pipeline or with a `generator.json`, copied into the workspace; or a hub
    tag. Errors: `UsageError` for one that cannot draw, a missing name or reason, a workspace without a snapshot, and a
    next round that has begun or is planned.
    """
    if not by.strip() or not why.strip():
        raise UsageError("give the submitter and the reason: --by NAME --why TEXT")
    job, number, snapshot = lease.last_job(workspace), next_round(workspace), latest_snapshot(workspace)
    if snapshot is None:
        raise UsageError("this workspace has no snapshot yet: create one with `flywheel run` or `flywheel curate`")
    preset = load_preset(job.preset)
    table = describe(checkpoint)
    require_drawing(table, preset.evaluation, "submit a checkpoint that training wrote, or another generator")
    path = workspace.round(number).plan
    with lease.hold(workspace, job):
        workspace.upgrade()
        if path.exists():
            raise UsageError(f"round {number} is planned already: finish it with `flywheel round run`, then submit")
        context = Context(workspace, job, preset, Progress())
        if not workspace.suite.exists():
            pool.hold_out(context)
        promotion.settle(workspace)
        place = workspace.round(number).checkpoint("candidate") / "submitted"
        shutil.rmtree(mirror(place), ignore_errors=True)  # of an interrupted submission
        copy = keep(place, table)
        source = str(table.get("model") or checkpoint)
        made = Submission(checkpoint=workspace.relative(copy), source=source, by=by, why=why)
        plan = _plan(context, number, snapshot, made)
        plan.write(path)
    return plan


def _plan(context: Context, number: int, snapshot: str, submitted: Submission) -> RoundPlan:
    """The plan of a round that only judges: its cases wait."""
    proposed = steps.propose(context, number, snapshot)
    waiting = Counter(c.track or "unrouted" for c in load_cases(context.workspace).values() if c.is_open)
    why = f"judges {submitted.source}, submitted by {submitted.by} ({submitted.why}): nothing is trained"
    return replace(
        proposed,
        steps=0,
        mix=(),
        targets=(),
        cases=(),
        waiting=dict(sorted(waiting.items())),
        remedies=(Remedy(kind="submit", reason=why),),
        submitted=submitted,
    )
