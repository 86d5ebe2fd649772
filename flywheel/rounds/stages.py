"""The stages of training in a workspace: those of a round, and what curation admits that no stage reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.lens import latest_snapshot, shard_manifest
from flywheel.core.records import BASE, Manifest, MixEntry, RoundPlan
from flywheel.core.workspace import Workspace
from flywheel.presets import load_preset
from flywheel.rounds import lease
from training.curriculum import Curriculum, schedule
from training.data.plan import MixSource
from training.recipes import Recipe, from_dict


@dataclass(frozen=True)
class Unread:
    """Rows that curation admitted to a stage, in one bucket, and no stage of the recipe trains on."""

    stage: str
    bucket: int
    rows: int
    reason: str


def curriculum_of(workspace: Workspace, plan: RoundPlan) -> Curriculum:
    """The stages of a round's data phase, none if that is empty.

    They are those of the base pool: remedies join the stages that train in their buckets. A command has none.
    """
    if not plan.steps or "command" in plan.recipe:
        return Curriculum((), ())
    return _scheduled(shard_manifest(workspace, plan.snapshot), from_dict(plan.recipe), plan.steps)


def sources(workspace: Workspace, plan: RoundPlan) -> list[dict[str, Any]]:
    """The plan's mix as training reads it: the base pool, kept remedies of earlier rounds, the round's remedies."""

    def manifest(entry: MixEntry) -> Path:
        if entry.slice == BASE:
            return shard_manifest(workspace, plan.snapshot)
        return workspace.round(entry.round or plan.round).remedy_manifest

    return [{"manifest": str(manifest(m)), "slice": m.slice, "share": m.share} for m in plan.mix if m.share]


def unread(workspace: Workspace) -> list[Unread]:
    """What the latest snapshot admits and a first round with the last run's preset does not read."""
    snapshot = latest_snapshot(workspace)
    if snapshot is None or not Ledger(workspace, "runs").rows():
        return []
    try:
        preset = load_preset(lease.last_job(workspace).preset)
        training, recipe = preset.training, from_dict(preset.training.recipe)
        if preset.trainer.command or preset.generator:  # what those read cannot be told from here
            return []
    except UsageError:  # a preset of another version, or of a plug-in that is not installed here
        return []
    manifest = shard_manifest(workspace, snapshot)
    admitted: Counter[tuple[str, int]] = Counter()
    for file in Manifest.read(manifest).files:
        admitted.update({(stage, file.bucket): file.rows for stage in file.stages})
    try:
        turns = _scheduled(manifest, recipe, training.base_steps).turns
    except UsageError:  # no stage has rows
        turns = ()
    read = {(turn.stage.name, bucket) for turn in turns for bucket in turn.rows}
    return [
        Unread(stage, bucket, rows, _why(recipe, stage, bucket, training.base_steps))
        for (stage, bucket), rows in sorted(admitted.items())
        if (stage, bucket) not in read
    ]


def funnel_rows(workspace: Workspace) -> list[dict[str, Any]]:
    """`unread` as rows of the funnel: filter `training`, which drops nothing."""
    return [
        {"stage": u.stage, "bucket": u.bucket, "filter": "training", "status": f"not read: {u.reason}"}
        | {"entered": u.rows, "dropped": 0, "quarantined": 0}
        for u in unread(workspace)
    ]


def _why(recipe: Recipe, stage: str, bucket: int, steps: int) -> str:
    if stage not in {s.name for s in recipe.stages}:
        return f"recipe {recipe.name} has no stage {stage}"
    if bucket not in recipe.batch:
        return f"recipe {recipe.name} has no batch for bucket {bucket}"
    return f"{stage} gets none of {steps} steps, or draws no such rows"


def _scheduled(manifest: Path, recipe: Recipe, steps: int) -> Curriculum:
    return schedule(recipe, [MixSource(manifest=manifest, slice=BASE)], steps)
