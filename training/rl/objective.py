"""What RL minimises: the loss of each trained row of a prompt group."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from training.losses import grpo
from training.rl.policy import Policy
from training.rl.recipe import RLRecipe
from training.rl.rollout import PromptGroup, objective_velocity


def row_losses(
    policy: Policy, group: PromptGroup, advantage: Tensor, recipe: RLRecipe
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(loss, ratio, KL to the reference) per row, in parts of at most `recipe.rows` rows; advantage [G]."""
    count = len(group.t)
    every = advantage.repeat(count // len(advantage))
    for start in range(0, count, recipe.rows or count):
        rows = slice(start, min(count, start + (recipe.rows or count)))
        x, t, old = group.x[rows], group.t[rows], group.old[rows]
        v = objective_velocity(policy.model, x, t, group.conditions, recipe)
        ratio = torch.ones_like(t)
        if recipe.algorithm == "nft":
            good = grpo.optimality(every[rows], recipe.nft_limit)
            x0 = group.latents.repeat(count // len(advantage), 1, 1, 1)[rows]
            loss = grpo.nft_loss(v, old, x, t, x0, good, recipe.nft_strength)
        else:
            step, guard = group.step(recipe, rows), recipe.algorithm == "guard"
            change = (grpo.guard_log_ratio if guard else grpo.log_ratio)(step, group.z[rows], v, old)
            loss = grpo.clipped_loss(change, every[rows], *recipe.clip)
            loss = loss * grpo.guard_weight(step) if guard else loss
            ratio = change.detach().exp()
        kl = torch.zeros_like(t)
        if recipe.kl:
            with policy.reference() as reference:
                still = objective_velocity(reference, x, t, group.conditions, recipe)
            kl = grpo.velocity_kl(v, still)
            loss = loss + recipe.kl * kl
        yield loss, ratio, kl.detach()
