"""Time grids, against diffusers' scheduler and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from flywheel.core.errors import UsageError
from flywheel.core.torchvision_shim import declare_operators
from training import schedules


@pytest.mark.parametrize("steps", [2, 4, 40])
@pytest.mark.parametrize("tokens", [256, 1024, 4096, 8192, 16_384])
def test_dynamic_shift_equals_diffusers(tokens, steps):
    declare_operators()
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.qwenimage21.pipeline_qwenimage21 import calculate_shift

    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02)
    mu = calculate_shift(tokens, 256, 8192, 0.5, 0.9)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    assert np.abs(schedules.dynamic_shift(steps, tokens) - scheduler.sigmas.numpy()).max() < 1e-6


def test_known_grids():
    assert schedules.uniform(4).tolist() == [1, 0.75, 0.5, 0.25, 0]
    # The published four-step grid at 1024 pixels (4096 tokens), whose last step is spent on almost nothing.
    assert schedules.dynamic_shift(4, 4096).round(3).tolist() == [1.0, 0.767, 0.456, 0.02, 0.0]
    assert schedules.dynamic_shift(1, 4096).tolist() == [1.0, 0.0]
    assert schedules.own([1, 0.8, 0.3]).tolist() == schedules.own([1, 0.8, 0.3, 0]).tolist() == [1, 0.8, 0.3, 0]


def test_bad_grids_are_named():
    for grid in ([], [0], [0.5, 0.5], [0.2, 0.4], [1.5, 0.5], [1, float("nan")], [1, -0.1]):
        with pytest.raises(UsageError, match="are not a time grid"):
            schedules.own(grid)
    with pytest.raises(UsageError, match="use at least 1"):
        schedules.dynamic_shift(0, 256)
    with pytest.raises(UsageError, match="unknown schedule 'cosine'"):
        schedules.times("cosine", 4, 256)
