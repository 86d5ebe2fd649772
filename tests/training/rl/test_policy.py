"""The reference and the merged weights."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.training.rl.tiny import TINY, rolled
from training.rl.rollout import objective_velocity


def test_the_reference_is_the_start_with_lora_off_and_a_frozen_copy_else(start, cards):
    for rank in (4, 0):
        policy, group = rolled(start, cards, replace(TINY, lora_rank=rank))
        with torch.no_grad():
            for parameter in policy.trainable.values():
                parameter.add_(0.05)
            moved = objective_velocity(policy.model, group.x, group.t, group.conditions, TINY)
            with policy.reference() as reference:
                still = objective_velocity(reference, group.x, group.t, group.conditions, TINY)
            merged = start.model()
            merged.load_state_dict(policy.merged())
            same = objective_velocity(merged, group.x, group.t, group.conditions, TINY)
        torch.testing.assert_close(still, group.old, atol=1e-6, rtol=1e-5)
        assert float((moved - group.old).abs().max()) > 1e-3
        torch.testing.assert_close(same, moved, atol=1e-4, rtol=1e-3)
