"""A checkpoint as a generator draws what its sampler draws, with a seed per prompt and a negative prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import UsageError
from flywheel.generators.checkpoint import CheckpointGenerator
from training.sampling import Sampler


def test_it_draws_the_samplers_pictures(one_step: Path):
    generator, sampler = CheckpointGenerator(str(one_step)), Sampler(one_step)
    prompts = ["a red disc", "a blue disc"]
    drawn = list(generator.draw(prompts, seeds=[3, 4], size=(32, 32), steps=2, guidance=2.0))
    for n, seed in enumerate((3, 4)):
        alone = sampler.sample(prompts, size=(32, 32), steps=2, cfg=2.0, seed=seed)[n]
        assert np.abs(drawn[n].astype(int) - alone).max() <= 1
    assert generator.fingerprint == sampler.checkpoint.fingerprint and generator.largest == 32
    plain, negative = (
        list(generator.draw(["a red disc"], seeds=[3], size=(32, 32), steps=2, guidance=4.0, negative=text))[0]
        for text in (None, "a blue disc at the right")
    )
    assert (plain != negative).any()


def test_masks_are_refused(one_step: Path):
    with pytest.raises(UsageError, match="draw without masks"):
        list(
            CheckpointGenerator(str(one_step)).draw(
                ["x"], seeds=[0], size=(32, 32), masks=[np.zeros((32, 32), np.uint8)]
            )
        )
