"""The curriculum of one run: which of the recipe's stages its data can train, and from which step to which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flywheel.core.errors import UsageError
from training.data.plan import MixSource, PlanSettings, read_listing
from training.recipes import Recipe, Stage, divided


@dataclass(frozen=True)
class Turn:
    """A stage's turn: `stage.steps` steps after `start` of the run. rows: by bucket, those that it may draw."""

    stage: Stage
    start: int
    rows: Mapping[int, int]

    @property
    def end(self) -> int:
        """Steps of the run after its last step."""
        return self.start + self.stage.steps

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "stage": self.stage.name,
            "steps": self.stage.steps,
            "buckets": sorted(self.rows),
            "rows": sum(self.rows.values()),
            "t2i_share": self.stage.t2i_share,
            "learning_rate": self.stage.learning_rate,
        }


@dataclass(frozen=True)
class Curriculum:
    """Turns that follow each other without a gap, and a line for each stage that is left out."""

    turns: tuple[Turn, ...]
    notes: tuple[str, ...]

    def at(self, step: int) -> Turn:
        """The turn that takes the step after `step` steps; after the last step, the last turn."""
        return next((turn for turn in self.turns if step < turn.end), self.turns[-1])

    def lines(self) -> list[str]:
        """One sentence for each stage, for people."""
        taken = [
            f"{t.stage.name}: {t.stage.steps} steps in {_buckets(t.rows)}, {sum(t.rows.values())} rows"
            for t in self.turns
        ]
        return [*taken, *self.notes]


def schedule(recipe: Recipe, mix: Sequence[MixSource], steps: int) -> Curriculum:
    """Divide `steps` among the recipe's stages in proportion to theirs; reads the manifests, no shard.

    A stage without rows is left out; the stage trained before it gets its steps, or the first one that has rows: a run
    is as long on small pictures as on large ones. Errors: `UsageError` if no stage has rows; `ShardError`.
    """
    rows = _rows(recipe, mix)
    stages = [replace(s, steps=n) for s, n in zip(recipe.stages, divided(steps, [s.steps for s in recipe.stages]))]
    trained = [s for s in stages if rows[s.name]]
    if not trained:
        there = sorted({file.bucket for source in mix for file in read_listing(source.manifest).files})
        other = f", or give the recipe a batch for {_buckets(there)}, where rows are" if there else ""
        raise UsageError(
            f"no training rows for {', '.join(s.name for s in stages)} and {_buckets(recipe.batch)} in "
            f"{', '.join(str(s.manifest) for s in mix)}: admit more data or train other stages{other}"
        )
    taken, notes, heir = Counter[str](), [], trained[0].name
    for stage in stages:
        if rows[stage.name]:
            heir = stage.name
        else:
            notes.append(
                f"{stage.name} is left out: the data has no rows for it in {_buckets(recipe.batch)}; "
                f"{heir} takes its {stage.steps} steps"
            )
        taken[heir] += stage.steps
    turns: list[Turn] = []
    for stage in trained:
        if taken[stage.name]:
            start = turns[-1].end if turns else 0
            turns.append(Turn(replace(stage, steps=taken[stage.name]), start, rows[stage.name]))
        else:
            notes.append(f"{stage.name} is left out: its share of {steps} steps is less than one")
    return Curriculum(tuple(turns), tuple(notes))


def plan_settings(recipe: Recipe, stage: Stage, seed: int) -> PlanSettings:
    """What decides the order of a stage's batches, beside the data."""
    return {
        "batch": recipe.batch,
        "t2i_share": stage.t2i_share,
        "seed": seed,
        "stages": (stage.name,),
        "window": recipe.window,
    }


def _rows(recipe: Recipe, mix: Sequence[MixSource]) -> dict[str, Counter[int]]:
    """{stage: {bucket: rows}} that the recipe may draw from the mix."""
    rows = {stage.name: Counter[int]() for stage in recipe.stages}
    files = [
        file
        for source in mix
        if source.share
        for file in read_listing(source.manifest).files
        if source.slice is None or file.slice in (None, source.slice)
    ]
    for stage in recipe.stages:
        drawn = {"t2i": stage.t2i_share > 0, "ti2i": stage.t2i_share < 1}
        for file in files:
            if stage.name in file.stages and file.bucket in recipe.batch and drawn[file.task]:
                rows[stage.name][file.bucket] += file.rows
    return rows


def _buckets(buckets: Iterable[int]) -> str:
    return f"bucket {', '.join(map(str, sorted(buckets)))}"
