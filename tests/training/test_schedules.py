"""Time grids, against diffusers' scheduler and by hand; and which grid a checkpoint is sampled on."""

from __future__ import annotations

import numpy as np
import pytest

from flywheel.core.errors import UsageError
from flywheel.core.files import read_json, write_json
from flywheel.core.torchvision_shim import declare_operators
from training import schedules
from training.checkpoint import Checkpoint
from training.sampling import Sampler


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
        with pytest.raises(UsageError, match="are no time grid"):
            schedules.own(grid)
    with pytest.raises(UsageError, match="use at least 1"):
        schedules.dynamic_shift(0, 256)
    with pytest.raises(UsageError, match="unknown schedule 'cosine'"):
        schedules.times("cosine", 4, 256)


def test_the_checkpoint_names_its_grid(trained, tmp_path):
    """Other grids give other images; a grid of its own also sets the number of steps."""

    def with_config(name: str, **changes) -> Sampler:
        folder = tmp_path / name
        folder.mkdir()
        for file in trained.path.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        write_json(folder / "config.json", read_json(folder / "config.json") | changes)
        return Sampler(Checkpoint(folder))

    uniform, shifted = Sampler(trained), with_config("shifted", schedule="dynamic_shift")
    student = with_config("student", sigmas=[1.0, 0.75, 0.5, 0.25])
    assert trained.config["schedule"] == "uniform"
    assert len(uniform.times(None, 64)) == 21 and len(shifted.times(None, 64)) == 41
    assert shifted.times(4, 64).tolist() == schedules.dynamic_shift(4, 64).tolist()
    draw = lambda sampler, steps: sampler.sample(["a red disc"], size=(32, 32), steps=steps)  # noqa: E731
    assert np.array_equal(draw(student, None), draw(uniform, 4))
    assert np.array_equal(draw(student, 20), draw(uniform, 4))
    assert not np.array_equal(draw(shifted, 4), draw(uniform, 4))


def test_a_falling_rate_ends_at_its_share():
    from training.state import falling

    assert [falling(0.1, step, 4) for step in range(4)] == pytest.approx([1.0, 0.7, 0.4, 0.1])
    assert falling(1.0, 3, 4) == falling(0.1, 0, 1) == 1.0
