"""Recipes of distillation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from flywheel.core.errors import UsageError
from flywheel.core.generator import MOST_GUIDANCE
from flywheel.core.ranges import Above, Amount, Count, Finite, Positive, Share, Span, require_ranges
from training import schedules
from training.lora import TARGETS, require_lora
from training.recipe_file import named

OUTPUTS = ("clean", "end")


@dataclass(frozen=True, kw_only=True)
class DMDRecipe:
    """One distillation. [S] report and the reports around it, [D] our decision where nothing public says it.

    sigmas: the student's own time grid, from 1; its length is the number of forward passes [S: 4]. At four steps the
    base schedule would give 1, 0.767, 0.456, 0.02, and waste the last.
    teachers: checkpoint folders, Base or RL; empty: the student's initial weights. teacher_weights: for each teacher,
    one weight or one per grid step; empty: equal.
    cfg: guidance of the real score. A strong one gives oversaturated colours.
    fake_updates: of the fake score per student update [S: 5]. output: what the loss sees, the "clean" prediction from
    an intermediate state of the student's own trajectory, or the trajectory's "end" [S: either].
    decoupled: draw separate times for guidance, above the student's next time; matching uses all times [D: the range].
    t2i_share: share of T2I rows, the rest is TI2I [S: 5:5 best; a coherent prompt set beats a mixed one, and prompts
    full of text hurt]. batch: rows of an update.
    t_range, time_mean, time_std: of the logit-normal noise levels [S: range].
    learning_rate, fake_learning_rate: without warm-up, falling linearly to their `final_learning_rate` share.
    lora_rank: of adapters of student and fake score, the only weights that train; 0 trains every weight; lora_alpha: 0
    is twice the rank; lora_targets: layers of each block.
    """

    name: str
    steps: Count
    side: Positive
    batch: Positive
    learning_rate: Amount
    fake_learning_rate: Amount
    sigmas: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25)
    teachers: tuple[str, ...] = ()
    teacher_weights: Annotated[tuple[tuple[float, ...], ...], Span(0)] = ()
    cfg: Annotated[float, Span(0, MOST_GUIDANCE)] = 3.0
    fake_updates: Count = 5
    output: str = "clean"
    decoupled: bool = False
    t2i_share: Share = 0.5
    t_range: Annotated[tuple[float, float], Span(0, 1)] = (0.02, 0.98)
    time_mean: Finite = 0.0
    time_std: Amount = 1.0
    final_learning_rate: Amount = 1.0
    weight_decay: Amount = 0.0
    betas: Annotated[tuple[float, float], Span(0, 1, below=True)] = (0.0, 0.95)
    gradient_clip: Above = 1.0
    ema: Share = 0.99
    checkpoint_every: Count = 100
    lora_rank: Count = 0
    lora_alpha: Amount = 0.0
    lora_targets: tuple[str, ...] = TARGETS

    def __post_init__(self) -> None:
        require_ranges(self)
        schedules.own(self.sigmas)
        require_lora(self)
        if self.output not in OUTPUTS:
            raise UsageError(f"output is {self.output!r}: use one of {', '.join(OUTPUTS)}")
        teachers, steps = max(1, len(self.teachers)), len(self.times) - 1
        if self.teacher_weights and (
            len(self.teacher_weights) != teachers or any(len(w) not in (1, steps) for w in self.teacher_weights)
        ):
            raise UsageError(f"teacher_weights: give {teachers} rows, each of 1 or {steps} weights")

    @property
    def times(self) -> tuple[float, ...]:
        """The grid, including its final 0."""
        return tuple(schedules.own(self.sigmas).tolist())

    def weight(self, teacher: int, step: int) -> float:
        """Weight of a teacher at a step of the grid."""
        if not self.teacher_weights:
            return 1 / max(1, len(self.teachers))
        row = self.teacher_weights[teacher]
        return row[step if len(row) > 1 else 0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


DMD_RECIPES = {
    "dmd": DMDRecipe(
        name="dmd", steps=2000, side=1024, batch=64, learning_rate=2e-6, fake_learning_rate=2e-6, cfg=4.0, ema=0.995
    ),
    "dmd-tiny": DMDRecipe(
        name="dmd-tiny",
        steps=120,
        side=64,
        batch=16,
        learning_rate=2e-4,
        fake_learning_rate=4e-4,
        final_learning_rate=0.1,
        fake_updates=3,
        ema=0.95,
        checkpoint_every=25,
    ),
}


def dmd_recipe(name: str, **changes: Any) -> DMDRecipe:
    """A named recipe, with changes. Errors: `UsageError` for unknown names and values."""
    return named(DMD_RECIPES, name, changes)
