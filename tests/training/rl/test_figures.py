"""What a step of RL says of itself."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses.grpo import group_advantages
from training.rl.figures import faults, reward_line, update_line

NAMES = ("red", "dark")
VALUES = torch.tensor([[[0.0, 0.5], [1.0, 0.5]], [[math.nan, 0.5], [0.5, 0.5]]], dtype=torch.float64)


def test_rewards_are_told_with_what_was_not_scored_and_which_groups_teach():
    weights = torch.tensor([[1.0, 1.0], [0.5, 1.0]])
    line = reward_line(NAMES, VALUES, group_advantages(VALUES, weights, min_range=0.01), weights, (0.5, 1.0))
    assert line["rewards"]["red"] == {
        "mean": 0.5, "std": pytest.approx((0.5 / 3) ** 0.5), "weight": 0.75, "factor": 0.5, "groups": 1, "unscored": 1,
    }  # fmt: skip
    assert line["rewards"]["dark"]["groups"] == 0 and (line["groups"], line["flat_groups"]) == (2, 1)


def test_rewards_that_cannot_be_learnt_from_are_named():
    assert faults(NAMES, VALUES, {"red": 1}) == [
        "1 scores of reward red are not finite: not counted",
        "reward dark is the same, 0.5, for all 4 pictures",
    ]
    nothing = torch.full_like(VALUES, math.nan)
    assert faults(NAMES, nothing, {})[0] == "reward red is not a number for any of all 4 pictures"


def test_an_update_is_told_by_its_rows():
    ratios, first = torch.tensor([1.0, 1.0, 0.5, 2.0]), torch.tensor([1.0, 1.0])
    line = update_line(ratios, first, torch.tensor([0.25, 0.75]), torch.tensor([1.0, 3.0]), clip=(0.1, 1.5))
    assert (line["ratio_mean"], line["ratio_max"], line["ratio_first"]) == (1.125, 2.0, 0.0)
    assert (line["clipped_below"], line["clipped_above"]) == (0.25, 0.0)
    assert (line["guided_gap"], line["kl"]) == (0.5, 2.0)
