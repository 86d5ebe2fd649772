"""Roll-outs: the first ratio, guidance, DiffusionNFT's rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.training.rl.tiny import TINY, rolled
from training.losses.grpo import log_prob, log_ratio
from training.prompts import velocity
from training.rl.rollout import objective_velocity


@pytest.mark.parametrize(("step", "number"), [("sde", 0), ("cps", 1)])
def test_the_first_ratio_is_one_under_hybrid_guidance_whatever_the_batch(start, cards, step, number):
    """Old log-prob: the conditional branch's at the drawn sample, although the sample was drawn with guidance."""
    recipe = replace(TINY, step=step)
    policy, group = rolled(start, cards, recipe, number)
    assert group.x.shape == (8, 16, 4, 4) and group.gap.abs().max() > 1e-4
    for size in (8, 3, 1):
        for first in range(0, 8, size):
            rows = slice(first, first + size)
            v = objective_velocity(policy.model, group.x[rows], group.t[rows], group.conditions, recipe)
            ratio = log_ratio(group.step(recipe, rows), group.z[rows], v, group.old[rows]).exp()
            assert float((ratio - 1).abs().max()) <= torch.finfo().eps  # the last bit, with other batch shapes
    every = group.step(recipe, slice(None))
    drawn = every.mean(group.x, group.old) + every.std[:, None, None, None] * group.z
    conditional = velocity(policy.model, group.x, group.t, group.conditions[0].prefix(policy.model))
    base = velocity(policy.model, group.x, group.t, group.conditions[1].prefix(policy.model))
    guided = base + recipe.cfg * (conditional - base)
    gap = log_prob(every, group.x, drawn, guided) - log_prob(every, group.x, drawn, conditional)
    torch.testing.assert_close(group.gap, gap, atol=2e-5, rtol=1e-4)
    # The sample is where the guided density has its unit noise.
    assert abs(float(every.standardised(group.x, drawn, guided).std()) - 1) < 0.1


def test_other_guidance_is_what_it_says(start, cards):
    _, plain = rolled(start, cards, replace(TINY, guidance="none"))
    _, inside = rolled(start, cards, replace(TINY, guidance="objective"))
    _, hybrid = rolled(start, cards, TINY)
    assert not plain.gap.any() and torch.equal(inside.latents, hybrid.latents)
    assert not torch.equal(inside.old, hybrid.old) and not torch.equal(plain.latents, hybrid.latents)


def test_nft_noises_a_group_alike_at_times_over_the_whole_path(start, cards):
    _, group = rolled(start, cards, replace(TINY, algorithm="nft"))
    assert group.x.shape == (8, 16, 4, 4) and group.t.unique().tolist() == [0.25, 0.75]
    count = len(group.t.unique())
    t = group.t.reshape(-1, 1, 1, 1)
    noise = ((group.x - (1 - t) * group.latents.repeat(count, 1, 1, 1)) / t).unflatten(0, (count, -1))
    torch.testing.assert_close(noise, noise[:, :1].expand_as(noise), atol=1e-5, rtol=0)
    assert float((noise[0] - noise[-1]).abs().mean()) > 0.5
