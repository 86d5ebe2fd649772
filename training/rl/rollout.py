"""Roll-outs: pictures of one prompt group, drawn with guidance, and what the objective needs of their steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flywheel.core.errors import UsageError
from training.losses.grpo import STEPS, Step, standard_log_prob
from training.models.mmdit import MMDiT
from training.prompts import Condition, RolloutPrompt, category, velocity
from training.rewards import Rewards
from training.rl.recipe import RLRecipe


@dataclass(frozen=True)
class PromptGroup:
    """One prompt's pictures and the rows to train on.

    `latents` [G, C, h, w]; then one row per picture and trained step, step by step: `x` [N, C, h, w], `t` and
    `following` [N], `old` the policy's velocity there, `z` where the drawn x' lies in its density. For DiffusionNFT
    `x` are noised pictures and `z` is unused. `gap` [N]: guided minus conditional log-prob of x'.
    """

    prompt: RolloutPrompt
    conditions: tuple[Condition, Condition]
    latents: Tensor
    x: Tensor
    t: Tensor
    following: Tensor
    old: Tensor
    z: Tensor
    gap: Tensor

    def step(self, recipe: RLRecipe, rows: slice) -> Step:
        """The density of the rows' steps."""
        return STEPS[recipe.step](self.t[rows], self.following[rows], recipe.noise_level)


@torch.no_grad()
def roll_out(
    model: MMDiT,
    prompt: RolloutPrompt,
    conditions: tuple[Condition, Condition],
    start: Tensor,
    noise: Tensor,
    times: Tensor,
    recipe: RLRecipe,
) -> PromptGroup:
    """Draw a group from `start` [G, C, h, w]: stochastic in the window, with `noise` [W, G, C, h, w], else Euler.

    Conditions are encoded once. Under hybrid guidance, the objective's velocity is the conditional branch alone: the
    old log-prob is that branch's at the drawn sample, so that the first ratio is exactly 1; `gap` keeps the difference
    to the guided one.
    """
    x, first, count = start, recipe.window[0], len(noise)
    prefixes = [c.prefix(model) for c in (conditions if recipe.guidance != "none" else conditions[:1])]
    kept: list[tuple[Tensor, ...]] = []
    for i in range(len(times) - 1):
        t, following = times[i].expand(len(x)), times[i + 1].expand(len(x))
        conditional = guided = velocity(model, x, t, prefixes[0])
        if len(prefixes) == 2:
            base = velocity(model, x, t, prefixes[1])
            guided = base + recipe.cfg * (conditional - base)
        if recipe.algorithm != "nft" and first <= i < first + count:
            step, drawn = STEPS[recipe.step](t, following, recipe.noise_level), noise[i - first]
            moved = step.sample(x, guided, drawn)
            old = guided if recipe.guidance == "objective" else conditional
            # In the density it was drawn from, a sample's z is its noise, without rounding.
            z = drawn if guided is conditional else step.standardised(x, moved, conditional)
            gap = standard_log_prob(step, drawn) - standard_log_prob(step, z)
            kept.append((x, t, following, old, drawn if old is guided else z, gap))
        else:
            moved = x + (times[i + 1] - times[i]) * guided
        x = moved
    if not kept:
        return PromptGroup(prompt, conditions, x, *_noised(model, x, conditions, noise[:, 0], recipe))
    return PromptGroup(prompt, conditions, x, *(torch.cat(part) for part in zip(*kept, strict=True)))


def _noised(
    model: MMDiT, x0: Tensor, conditions: tuple[Condition, Condition], noise: Tensor, recipe: RLRecipe
) -> tuple[Tensor, ...]:
    """DiffusionNFT's rows: the pictures noised by each `noise` [W, C, h, w], to times evenly over (0, 1).

    A group shares its noise: its effect is then alike in all rows, and weighs less in the gradient, where the group's
    advantages sum to 0.
    """
    count, group = len(noise), len(x0)
    t = ((torch.arange(count, device=x0.device) + 0.5) / count).repeat_interleave(group)
    shape = (-1, *[1] * (x0.dim() - 1))
    x = (1 - t).reshape(shape) * x0.repeat(count, 1, 1, 1) + t.reshape(shape) * noise.repeat_interleave(group, 0)
    old = objective_velocity(model, x, t, conditions, recipe)
    return x, t, torch.zeros_like(t), old, x.new_zeros(()).expand_as(x), torch.zeros_like(t)


def objective_velocity(
    model: MMDiT, x: Tensor, t: Tensor, conditions: tuple[Condition, Condition], recipe: RLRecipe
) -> Tensor:
    """The velocity to optimise: the conditional branch, or the guided one under guidance "objective"."""
    conditional = velocity(model, x, t, conditions[0].prefix(model))
    if recipe.guidance != "objective":
        return conditional
    base = velocity(model, x, t, conditions[1].prefix(model))
    return base + recipe.cfg * (conditional - base)


def require_usable(
    prompts: Sequence[RolloutPrompt], held_out: Sequence[RolloutPrompt], recipe: RLRecipe, rewards: Rewards
) -> None:
    """Check that a run can learn something from its prompts and rewards. Errors: `UsageError`."""
    if not prompts:
        raise UsageError("there are no prompts to train on: give at least one")
    if shared := {p.text for p in prompts} & {p.text for p in held_out}:
        raise UsageError(f"held-out prompts must not be trained on, {len(shared)} are in both lists: {min(shared)!r}")
    named = {*recipe.rewards, *(proxy for reward, proxy in recipe.proxies.items() if reward in recipe.rewards)}
    missing = named - set(rewards.names)
    if missing or not recipe.rewards:
        why = f"{min(missing)!r} is not among the rewards" if missing else "the recipe gives no reward a weight"
        raise UsageError(f"{why}: configured are {', '.join(rewards.names) or 'none'}")
    kinds = {category(p) for p in prompts}
    if idle := sorted(k for k in kinds if not any(recipe.weight(k, n) for n in recipe.rewards)):
        raise UsageError(f"no reward has a weight for {idle[0]} prompts: add it, or {'*'!r}, to the recipe's weights")
