"""A distillation with plain values, for a job of several processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.core.storage import located
from flywheel.signals.suite import load_suite

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint
    from training.run import Progress


def distil_as(
    *,
    output: str,
    prompts: str,
    base: str,
    changes: Mapping[str, Any],
    steps: int,
    init: str,
    seed: int,
    progress: Progress | None = None,
) -> Checkpoint:
    """Distil `init` on a suite of prompts by the recipe `base` with changes. Errors: `UsageError`."""
    from training.dmd.recipe import DMD_RECIPES
    from training.dmd.trainer import train
    from training.recipe_file import named

    recipe = named(DMD_RECIPES, base, {**changes, "steps": steps})
    return train(Path(output), load_suite(located(prompts)), recipe, init=located(init), seed=seed, progress=progress)
