"""Losses of a prompt group's rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.training.rl.tiny import TINY, rolled
from training.rl.objective import row_losses


@pytest.mark.parametrize("algorithm", ["grpo", "guard", "nft"])
def test_parts_of_a_group_are_the_whole(start, cards, algorithm):
    recipe = replace(TINY, algorithm=algorithm)
    policy, group = rolled(start, cards, recipe)
    advantage = torch.tensor([1.0, -1.0, 0.5, -0.5])
    (whole,) = row_losses(policy, group, advantage, recipe)
    parts = list(row_losses(policy, group, advantage, replace(recipe, rows=3)))
    assert [len(loss) for loss, _, _ in parts] == [3, 3, 2]
    for one, many in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(one, torch.cat(many), atol=1e-6, rtol=1e-5)
    loss, ratio, kl = whole
    assert (ratio == 1).all() and (kl < 1e-10).all()  # before the first update
    if algorithm == "grpo":
        torch.testing.assert_close(loss.detach(), -advantage.repeat(2), atol=1e-6, rtol=1e-5)
