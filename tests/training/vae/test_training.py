"""The small VAE: exact resume, and a result that everything else opens."""

from __future__ import annotations

import pytest
import torch

from flywheel.core.errors import UsageError
from tests.training.vae.tiny import SMALL, wave_pictures
from training.checkpoint import read_metrics
from training.models.vae import VAE
from training.vae.training import VAE_RECIPES, VAERecipe, crops, load_vae_recipe, train_vae


@pytest.fixture(scope="module")
def pictures():
    return wave_pictures()


def test_crops_are_a_function_of_their_key(pictures):
    first, same, second = (crops([pictures[:1], pictures[1:]], 32, 6, ("k", i)) for i in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, second)
    assert first.shape == (6, 3, 32, 32) and first.min() >= -1 and first.max() <= 1


def test_stopped_and_run_again_equals_uninterrupted_and_a_finished_run_returns(tmp_path, pictures):
    def stop(done, steps, line):
        if done == 3:
            raise KeyboardInterrupt

    uninterrupted = train_vae(tmp_path / "a", pictures, SMALL)
    with pytest.raises(KeyboardInterrupt):
        train_vae(tmp_path / "b", pictures, SMALL, progress=stop)
    assert not (tmp_path / "b" / "final").exists()
    resumed = train_vae(tmp_path / "b", pictures, SMALL)
    files = sorted(p.name for p in uninterrupted.iterdir())
    assert "config.json" in files and files == sorted(p.name for p in resumed.iterdir())
    assert all((uninterrupted / name).read_bytes() == (resumed / name).read_bytes() for name in files)
    assert [line["step"] for line in read_metrics(tmp_path / "b" / "metrics.jsonl")] == [1, 2, 3, 4]
    assert train_vae(tmp_path / "b", pictures, SMALL, progress=stop) == resumed
    with pytest.raises(UsageError, match="holds another VAE"):
        train_vae(tmp_path / "b", pictures, SMALL.change(kl=0.1))
    with pytest.raises(UsageError, match="crops of 64 pixels"):
        train_vae(tmp_path / "c", pictures, SMALL.change(side=64))


def test_it_learns_and_its_latents_have_unit_variance(tmp_path, pictures):
    folder = train_vae(tmp_path, pictures, SMALL.change(width=16, decoder_width=16), steps=30)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    first, last = (
        {name: sum(line[name] for line in part) for name in ("reconstruction", "perceptual", "alignment")}
        for part in (lines[:4], lines[-4:])
    )
    assert last["reconstruction"] < 0.98 * first["reconstruction"]
    assert last["perceptual"] < 0.9 * first["perceptual"] and last["alignment"] < 0.7 * first["alignment"]
    vae = VAE.open(str(folder))
    assert (vae.channels, vae.factor) == (8, 16)
    latents = vae.encode(crops([pictures], 32, 64, ("seen",)))
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.35 and (latents.std(dim=(0, 2, 3)) - 1).abs().max() < 0.35


def test_the_recipe_of_the_report_has_its_size():
    with torch.device("meta"):
        vae = load_vae_recipe("qwen-image-2").build()
    millions = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (vae.encoder, vae.decoder)]
    assert [round(n) for n in millions] == [79, 259] and (vae.config.z_dim, vae.config.in_channels) == (64, 4)


def test_its_parts_train_at_a_small_size(tmp_path, pictures, dinov2):
    recipe = VAE_RECIPES["qwen-image-2"].change(
        channels=8, width=8, decoder_width=8, widths=(1, 1, 1, 1, 1), residual_blocks=1, teacher=str(dinov2),
        side=32, batch=2, steps=30, warmup=2, learning_rate=5e-3, checkpoint_every=100,
    )  # fmt: skip
    folder = train_vae(tmp_path / "v", pictures, recipe)
    lines = read_metrics(tmp_path / "v" / "metrics.jsonl")
    means = [{k: sum(line[k] for line in part) for k in ("alignment", "loss")} for part in (lines[:5], lines[-5:])]
    assert means[1]["alignment"] < 0.97 * means[0]["alignment"] and means[1]["loss"] < 0.8 * means[0]["loss"]
    vae = VAE.open(str(folder))
    assert (vae.channels, vae.factor) == (8, 16)
    assert vae.decode(vae.encode(crops([pictures], 32, 2, ("seen",)))).shape == (2, 3, 32, 32)  # opaque


def test_recipes_are_named_or_read(tmp_path):
    assert load_vae_recipe("tiny") == VAERecipe(alpha=True)
    path = tmp_path / "vae.toml"
    path.write_text("widths = [1, 2, 2, 2]\nkl = 0.0\n")
    assert load_vae_recipe(str(path)) == VAERecipe(alpha=True, widths=(1, 2, 2, 2), kl=0.0)
    path.write_text('base = "qwen-image-2"\nbatch = 8\n')
    assert load_vae_recipe(str(path)) == VAE_RECIPES["qwen-image-2"].change(batch=8)
    wrong = {
        "breadth = 3": "has no breadth",
        "[": "cannot read",
        "block = 0": "block is 0: give a whole number",
    }
    for text, message in (wrong | {'base = "big"': "unknown recipe 'big'"}).items():
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            load_vae_recipe(str(path))
    with pytest.raises(UsageError, match="unknown VAE preset 'huge'"):
        load_vae_recipe("huge")


@pytest.mark.parametrize(("rate", "message"), [(1e30, "step 2: loss"), (1e39, "step 1: weights are not finite")])
def test_a_run_that_diverges_stops_and_stores_no_broken_weights(tmp_path, pictures, rate, message):
    wild = SMALL.change(learning_rate=rate, warmup=1, checkpoint_every=1)
    with pytest.raises(UsageError, match=f"{message}.*lower the learning rate or check the data of this step"):
        train_vae(tmp_path, pictures, wild, steps=2)
    assert not (tmp_path / "final").exists()
