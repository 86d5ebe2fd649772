"""A submitted candidate: a generator made elsewhere, evaluated and gated as a round's own.

A person submits one by hand; the first round submits the one that the preset starts from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flywheel.cases.events import load_cases
from flywheel.core.errors import UsageError
from flywheel.core.files import discard_folder
from flywheel.core.lens import latest_snapshot
from flywheel.core.mirror import mirror
from flywheel.core.plugins import plugins
from flywheel.core.progress import Progress
from flywheel.core.records import Remedy, RoundPlan, Submission
from flywheel.core.text import blank
from flywheel.core.workspace import Workspace
from flywheel.generators import describe
from flywheel.presets import Evaluation, load_preset
from flywheel.rounds import lease, pool, promotion, steps
from flywheel.rounds.context import Context
from flywheel.rounds.outlook import next_round
from flywheel.rounds.taken_in import keep, require_drawing

_ADVICE = "submit a checkpoint that training wrote, or another generator"


def submit(workspace: Workspace, checkpoint: Path, *, by: str, why: str) -> RoundPlan:
    """Make a generator the candidate of the next round, and pin that round's plan; running the round judges it.

    checkpoint: folder of a checkpoint, of a pipeline or with a `generator.json`, copied into the workspace; or a hub
    tag. Errors: `UsageError` for one that cannot draw, a missing name or reason, a workspace without a snapshot, and a
    next round that has begun or is planned.
    """
    if blank(by) or blank(why):
        raise UsageError("give the submitter and the reason: --by NAME --why TEXT")
    job, number, snapshot = lease.last_job(workspace), next_round(workspace), latest_snapshot(workspace)
    if snapshot is None:
        raise UsageError("this workspace has no snapshot yet: create one with `flywheel run` or `flywheel curate`")
    preset = load_preset(job.preset)
    table = _drawable(checkpoint, preset.evaluation)
    with lease.hold(workspace, job):
        workspace.upgrade()
        if workspace.round(number).plan.exists():
            raise UsageError(f"round {number} is planned already: finish it with `flywheel round run`, then submit")
        context = Context(workspace, job, preset, Progress())
        if not workspace.suite.exists():
            pool.hold_out(context)
        promotion.settle(workspace)
        return _pin(context, number, snapshot, table, by=by, why=why)


def start(run: Context, number: int, snapshot: str) -> None:
    """Make the generator that the preset starts from the candidate of this round, the first one.

    A plug-in may have no checkpoint for the job's seed; then the round trains from nothing. Errors: `UsageError` if it
    cannot draw.
    """
    if run.workspace.round(number).plan.exists():
        return
    if run.preset.generator:
        table = dict(run.preset.generator)
        if table["kind"] == "recorded":
            table.setdefault("suite", str(run.workspace.suite))
        require_drawing(table, run.preset.evaluation, _ADVICE)
    else:
        named, known = run.preset.training.start, plugins("flywheel.checkpoints")
        checkpoint = known[named](seed=run.job.seed) if named in known else Path(named)
        if checkpoint is None:
            run.progress.say(
                f"{named}: no checkpoint for a world of seed {run.job.seed}, so this one trains from nothing"
            )
            return
        table = _drawable(checkpoint, run.preset.evaluation)
    _pin(run, number, snapshot, table, by=f"preset {run.preset.name}", why="all rounds start from it")


def _drawable(checkpoint: Path, settings: Evaluation) -> dict[str, Any]:
    """The table of a generator that was given by its folder or tag. Errors: `UsageError` if it cannot draw."""
    table = describe(checkpoint)
    require_drawing(table, settings, _ADVICE)
    return table


def _pin(run: Context, number: int, snapshot: str, table: Mapping[str, Any], *, by: str, why: str) -> RoundPlan:
    """Copy the generator into the workspace and write the plan of the round that judges it."""
    place = run.workspace.round(number).checkpoint("candidate") / "submitted"
    discard_folder(mirror(place))  # of an interrupted submission
    copy = keep(place, table)
    source = str(table.get("model") or table.get("folder") or table["kind"])
    made = Submission(checkpoint=run.workspace.relative(copy), source=source, by=by, why=why)
    plan = _plan(run, number, snapshot, made)
    plan.write(run.workspace.round(number).plan)
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
