"""A checkpoint as a generator draws what its sampler draws, with a seed per prompt and a negative prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import UsageError
from flywheel.core.generator import Undrawn
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


def test_an_edit_stays_below_its_mask(one_step: Path):
    generator, rng = CheckpointGenerator(str(one_step)), np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(2)]
    mask = np.zeros((64, 64), np.uint8)  # of another size than the picture that is drawn, as references may be
    mask[:, 40:] = 255
    asked = {"prompts": ["x", "x"], "seeds": [1, 1], "size": (32, 32), "steps": 3, "guidance": 2.0}
    free, held = generator.draw(references=[[pictures[0]]] * 2, masks=[None, mask], **asked)
    assert (held[:, :20] == pictures[0][:, :20]).all() and (free[:, :20] != pictures[0][:, :20]).any()
    assert (held[:, 20:] != pictures[0][:, 20:]).any()
    (alone,) = generator.draw(["x"], seeds=[1], size=(32, 32), steps=3, guidance=2.0, references=[[pictures[0]]])
    assert np.abs(free.astype(int) - alone).max() <= 1  # a mask beside it changes nothing
    whole = np.full((32, 32), 255, np.uint8)
    (open_,) = generator.draw(
        ["x"], seeds=[1], size=(32, 32), steps=3, guidance=2.0, references=[[pictures[0]]], masks=[whole]
    )
    assert np.abs(open_.astype(int) - alone).max() <= 1
    with pytest.raises(UsageError, match="a mask without a reference"):
        list(generator.draw(["x"], seeds=[0], size=(32, 32), masks=[whole]))


def test_what_is_not_finite_is_no_picture(one_step: Path):
    generator = CheckpointGenerator(str(one_step))
    parameter = next(iter(generator.sampler.model.parameters()))
    parameter.data.view(-1)[0] = float("nan")
    (nothing,) = generator.draw(["a red disc"], seeds=[3], size=(32, 32), steps=2, guidance=2.0)
    assert isinstance(nothing, Undrawn) and "not finite" in nothing.reason
    with pytest.raises(UsageError, match="not finite .*draw with an earlier one"):
        generator.sampler.sample(["a red disc"], size=(32, 32), steps=2, cfg=2.0)
