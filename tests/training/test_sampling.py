"""Sampling from a checkpoint: deterministic, independent of batch mates, on the checkpoint's own grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from flywheel.core.errors import UsageError
from flywheel.core.files import read_json, write_json
from flywheel.signals.suite import Prompt
from training import schedules
from training.checkpoint import Checkpoint
from training.prompts import ConditionReader
from training.sampling import Sampler, grid, sample


def test_sampling_is_deterministic_and_does_not_depend_on_batch_mates(trained):
    prompts = ["a red disc at the left", "a blue disc", "a green disc at the right, with nothing else beside it at all"]
    settings = {"size": (32, 32), "steps": 4}
    together = sample(trained, prompts, seed=1, **settings)
    assert together.shape == (3, 32, 32, 3) and together.dtype == np.uint8
    assert np.array_equal(together, sample(trained.path, prompts, seed=1, **settings))
    alone = np.concatenate([sample(trained, [p], seed=1, **settings) for p in reversed(prompts)])[::-1]
    assert np.abs(together.astype(int) - alone).max() <= 1  # batched products may round the other way
    assert np.abs(together.astype(int) - sample(trained, prompts, seed=2, **settings)).mean() > 1


def test_guidance_is_affine_in_its_weight(trained):
    sampler, prompts = Sampler(trained), ["a red disc at the left"]
    steps = {cfg: sampler.sample(prompts, size=(32, 32), steps=1, cfg=cfg).astype(float) for cfg in (1.0, 2.0, 3.0)}
    inside = (np.minimum.reduce(list(steps.values())) > 0) & (np.maximum.reduce(list(steps.values())) < 255)
    assert np.abs(steps[1.0] - 2 * steps[2.0] + steps[3.0])[inside].max() <= 2  # rounding to whole grey levels


def test_references_reach_the_image(trained):
    left, right = (np.full((64, 64, 3), v, np.uint8) for v in (10, 240))
    prompts = ["make the disc blue"] * 2
    images = sample(trained, prompts, [[left], [right]], size=(32, 32), steps=2)
    assert np.abs(images[0].astype(int) - images[1]).max() > 0
    mixed = sample(trained, [*prompts, "a red disc"], [[left], [right], []], size=(32, 32), steps=2)
    assert np.abs(mixed[:2].astype(int) - images).max() <= 1


def test_bad_requests_are_named(trained, tmp_path):
    with pytest.raises(UsageError, match="multiples of 8"):
        sample(trained, ["a"], size=(30, 32))
    with pytest.raises(UsageError, match="1 lists of references"):
        sample(trained, ["a", "b"], [[]], size=(32, 32))
    with pytest.raises(UsageError, match="is not a checkpoint"):
        sample(tmp_path, ["a"])


def test_grid_holds_every_image(tmp_path):
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.full((1, 8, 8, 3), 40, np.uint8)
    path = grid(images, ["one", "two", "three", "four", "five"], tmp_path / "grid.png", columns=2, scale=1)
    colors = {color for _, color in Image.open(path).getcolors(10_000)}
    assert {(40 * i,) * 3 for i in range(5)} <= colors


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


def test_the_model_computes_on_its_own_device(trained):
    """`meta` stands for a GPU: an operation on tensors of two devices fails there too."""
    sampler, left = Sampler(trained), np.full((64, 64, 3), 10, np.uint8)
    sampler.model.to("meta")
    prompts = ["make the disc blue", "a red disc", "a green disc at the right, with nothing else beside it at all"]
    noise = torch.stack([sampler.noise(p, (32, 32), 0) for p in prompts])
    regions = [np.ones((32, 32), bool), None, None]
    parts = list(sampler._batches(prompts, [[left], [], []], noise, 2, 3.0, "blurred", regions))
    assert sorted(row for rows, _ in parts for row in rows) == [0, 1, 2]
    assert {latents.device.type for _, latents in parts} == {"meta"}
    assert {latents.shape[1:] for _, latents in parts} == {noise.shape[1:]}


def test_the_picture_without_text_stands_where_it_was_trained_however_long_the_prompt(trained, monkeypatch):
    sampler, seen = Sampler(trained), []
    prefill = sampler.model.prefill

    def spy(text, layout, *more):
        seen.append(layout)
        return prefill(text, layout, *more)

    monkeypatch.setattr(sampler.model, "prefill", spy)
    long = "a red disc at the left on a plain light card, a very simple flat drawing with nothing else in it"
    sampler.sample([long], size=(32, 32), steps=1, cfg=2.0)
    assert seen == [(24, (4, 4)), (16, (4, 4))]  # as long as the caption; as short as a dropped one
    reader = ConditionReader(sampler.encoder, sampler.autoencoder, sampler.text_tokens, 32)
    assert [c.layout for c in reader.read([Prompt("p", long, "t2i", (), ())])[0]] == seen
