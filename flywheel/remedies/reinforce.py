"""An RL run on prompts with checks: what `flywheel rl train` and a round do alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.core.errors import UsageError
from flywheel.core.storage import located
from flywheel.remedies.prompts import hold_out
from flywheel.signals.suite import load_suite

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint
    from training.rewards import Rewards
    from training.rl.recipe import RLRecipe
    from training.run import Progress


def reinforce(
    output: Path,
    prompts: Path,
    recipe: RLRecipe,
    *,
    init: Path,
    seed: int,
    held_out: Path | None = None,
    watch: Sequence[str] = (),
    rewards: Rewards | None = None,
    scorers: Mapping[str, Mapping[str, Any]] | None = None,
    extend: Path | None = None,
    progress: Progress | None = None,
) -> Checkpoint:
    """Train `init` by the recipe's rewards on a suite of prompts; resumes from the last checkpoint in `output`.

    held_out: prompts that are only measured; default: some of the prompts, kept apart. watch: further rewards to
    measure. rewards: a service of them; default: computed here, by scorers with these options. extend: a run
    to go on from. Errors: `UsageError`.
    """
    from flywheel.remedies.rewards import for_recipe
    from training.rl.trainer import train

    trained, watched = load_suite(prompts), load_suite(held_out) if held_out else None
    if watched is None:
        trained, watched = hold_out(trained, recipe.held_out)
    scored = rewards or for_recipe(recipe, scorers or {}, watch=watch)
    return train(
        output,
        trained,
        watched,
        recipe,
        scored,
        init=init,
        seed=seed,
        extend=extend,
        progress=progress,
    )


def reinforce_as(
    *,
    output: str,
    prompts: str,
    recipe: str,
    steps: int,
    init: str,
    seed: int,
    scorers: Mapping[str, Mapping[str, Any]],
    progress: Progress | None = None,
) -> Checkpoint:
    """`reinforce` with plain values, for a job of several processes; recipe: a .toml file. Errors: `UsageError`."""
    from training.recipe_file import load
    from training.rl.recipe import RL_RECIPES

    return reinforce(
        Path(output),
        located(prompts),
        replace(load(recipe, RL_RECIPES), steps=steps),
        init=located(init),
        seed=seed,
        scorers=scorers,
        progress=progress,
    )


def local_rewards(names: Sequence[str], scorers: Mapping[str, Mapping[str, Any]]) -> Rewards:
    """Rewards computed in this process. Errors: `UsageError` for an unknown one, or one whose weights are missing."""
    from flywheel.remedies.rewards import Local

    return Local(tuple(dict.fromkeys(names)), scorers)


def missing_rewards(names: Iterable[str], scorers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """{reward that cannot be computed here: why}, such as one whose weights are not configured."""
    from curation.scorers import Unavailable

    missing = {}
    for name in dict.fromkeys(names):
        try:
            local_rewards((name,), scorers)
        except (UsageError, Unavailable) as error:
            missing[name] = str(error)
    return missing


def reward_line(line: Mapping[str, Any]) -> str:
    """The mean rewards of a step's metrics, for a progress display."""
    return ", ".join(f"{n} {r['mean']:.3f}" for n, r in line["rewards"].items() if r["mean"] is not None)
