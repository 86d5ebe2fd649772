"""A submitted candidate: a checkpoint made elsewhere, evaluated and gated as a round's own.

A person submits one by hand; the first round submits the checkpoint that the preset starts from.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

from flywheel.cases.events import load_cases
from flywheel.core.environment import raise_environment_error
from flywheel.core.errors import UsageError
from flywheel.core.lens import latest_snapshot
from flywheel.core.mirror import fetched, mirror, publish
from flywheel.core.plugins import plugins
from flywheel.core.progress import Progress
from flywheel.core.records import Remedy, RoundPlan, Submission
from flywheel.core.storage import located
from flywheel.core.workspace import Workspace
from flywheel.presets import Evaluation, load_preset
from flywheel.rounds import lease, pool, promotion, steps
from flywheel.rounds.context import Context
from flywheel.rounds.outlook import next_round


def submit(workspace: Workspace, checkpoint: Path, *, by: str, why: str) -> RoundPlan:
    """Make a checkpoint the candidate of the next round, and pin that round's plan; running the round judges it.

    The checkpoint is copied into the workspace. Errors: `UsageError` for a folder that is not a whole checkpoint, a
    missing name or reason, a workspace without a snapshot, and a next round that has begun or is planned.
    """
    if not by.strip() or not why.strip():
        raise UsageError("give the submitter and the reason: --by NAME --why TEXT")
    job, number, snapshot = lease.last_job(workspace), next_round(workspace), latest_snapshot(workspace)
    if snapshot is None:
        raise UsageError("this workspace has no snapshot yet: create one with `flywheel run` or `flywheel curate`")
    preset = load_preset(job.preset)
    checkpoint = _require_checkpoint(located(checkpoint), preset.evaluation)
    with lease.hold(workspace, job):
        workspace.upgrade()
        if workspace.round(number).plan.exists():
            raise UsageError(f"round {number} is planned already: finish it with `flywheel round run`, then submit")
        context = Context(workspace, job, preset, Progress())
        if not workspace.suite.exists():
            pool.hold_out(context)
        promotion.settle(workspace)
        return _pin(context, number, snapshot, checkpoint, by=by, why=why)


def start(run: Context, number: int, snapshot: str) -> None:
    """Make the checkpoint that the preset starts from the candidate of this round, the first one.

    A plug-in may have none for the job's seed; then the round trains from nothing. Errors: `UsageError` if it is not a
    whole checkpoint.
    """
    if run.workspace.round(number).plan.exists():
        return
    named, known = run.preset.training.start, plugins("flywheel.checkpoints")
    checkpoint = known[named](seed=run.job.seed) if named in known else Path(named)
    if checkpoint is None:
        run.progress.say(f"{named}: no checkpoint for a world of seed {run.job.seed}, so this one trains from nothing")
        return
    checkpoint = _require_checkpoint(located(checkpoint), run.preset.evaluation)
    _pin(run, number, snapshot, checkpoint, by=f"preset {run.preset.name}", why="all rounds start from it")


def _pin(run: Context, number: int, snapshot: str, checkpoint: Path, *, by: str, why: str) -> RoundPlan:
    """Copy the checkpoint into the workspace and write the plan of the round that judges it."""
    copy = _copy(checkpoint, run.workspace.round(number).checkpoint("candidate") / "submitted")
    made = Submission(checkpoint=run.workspace.relative(copy), source=str(checkpoint), by=by, why=why)
    plan = _plan(run, number, snapshot, made)
    plan.write(run.workspace.round(number).plan)
    return plan


def _require_checkpoint(given: Path, settings: Evaluation) -> Path:
    """The folder of a checkpoint that can be sampled. Errors: `UsageError`."""
    from training.sampling import Sampler

    folder = given / "final" if (given / "final" / "config.json").exists() else given
    try:
        Sampler(folder).sample(["a test"], size=(settings.side, settings.side), steps=1)
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a damaged checkpoint raises
        raise_environment_error(error)
        raise UsageError(f"{folder} cannot draw ({error}): submit a checkpoint that training wrote") from error
    return folder


def _copy(checkpoint: Path, place: Path) -> Path:
    """Copy a checkpoint into the workspace; what an interrupted submission left there is replaced."""
    source, target = fetched(checkpoint), mirror(place)
    unfinished = target.with_name(f".{target.name}.tmp")
    for leftover in (unfinished, target):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(source, unfinished)
    os.replace(unfinished, target)
    publish(place)
    return place


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
