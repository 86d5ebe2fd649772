"""The adapter around diffusers' VAEs: its numbers, its file, and what a recipe and a checkpoint do with it."""

from __future__ import annotations

import pytest
import torch

from flywheel.core.errors import UsageError
from flywheel.core.torchvision_shim import declare_operators
from tests.training.tiny_models import tiny_kl_vae, tiny_qwen_vae
from tests.training.tiny_runs import TINY, contents, run
from training.checkpoint import Checkpoint
from training.models.autoencoder import load_autoencoder
from training.models.vae import PIXELS_AT_ONCE, VAE
from training.sampling import sample

RECIPE = TINY.change(channels=16, factor=16, checkpoint_every=1)


def pictures(count: int = 2, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pipeline") / "vae"
    tiny_qwen_vae().save_pretrained(path)
    return path


def test_the_published_vae_has_the_published_size():
    declare_operators()
    from diffusers import AutoencoderKLQwenImage21

    with torch.device("meta"):
        model = AutoencoderKLQwenImage21()
    encoder, decoder = (sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.decoder))
    assert (round(encoder / 1e6, 2), round(decoder / 1e6, 2)) == (78.68, 259.04)
    assert (model.config.z_dim, len(model.config.latents_mean), len(model.config.latents_std)) == (64, 64, 64)


def test_qwen_latents_are_the_mode_standardised_per_channel():
    model, images = tiny_qwen_vae(), pictures()
    vae = VAE(model)
    assert (vae.channels, vae.factor) == (16, 16)
    with torch.no_grad():
        opaque = torch.cat([images, torch.ones(2, 1, 32, 32)], dim=1)[:, :, None]
        mode = model.encode(opaque).latent_dist.mode()[:, :, 0]
    mean, std = (torch.tensor(model.config[f"latents_{n}"])[:, None, None] for n in ("mean", "std"))
    latents = vae.encode(images)
    assert latents.shape == (2, 16, 2, 2)
    assert torch.allclose(latents * std + mean, mode, atol=1e-5)
    assert latents.std() > 0.1

    with torch.no_grad():
        pixels = model.decode(mode[:, :, None]).sample[:, :, 0]
    alpha = (pixels[:, 3:] + 1) / 2
    assert 0.05 < alpha.mean() < 0.95  # random weights decode to something transparent
    assert torch.allclose(vae.decode(latents), pixels[:, :3] * alpha + (1 - alpha), atol=1e-5)


def test_an_older_vae_is_shifted_and_scaled():
    model, images = tiny_kl_vae(), pictures()
    vae = VAE(model)
    assert (vae.channels, vae.factor) == (4, 8)
    with torch.no_grad():
        mode = model.encode(images).latent_dist.mode()
        decoded = model.decode(mode).sample.clamp(-1, 1)
    latents = vae.encode(images)
    assert torch.allclose(latents, (mode - 0.1159) * 0.3611, atol=1e-6)
    assert torch.allclose(vae.decode(latents), decoded, atol=1e-5)


def test_many_pixels_go_in_parts():
    vae, count = VAE(tiny_kl_vae()), 3
    side = int((PIXELS_AT_ONCE / 2) ** 0.5) // 8 * 8  # two images at once, then one
    images = pictures(count, side)
    latents = vae.encode(images)
    assert torch.allclose(latents[2:], vae.encode(images[2:]), atol=1e-5) and latents.shape[0] == count


def test_saved_file_gives_the_same_latents(tmp_path):
    vae = VAE(tiny_qwen_vae())
    for name in ("a", "b"):
        vae.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = load_autoencoder(tmp_path / "a")
    assert isinstance(loaded, VAE) and loaded.fingerprint == vae.fingerprint
    assert torch.equal(loaded.encode(pictures()), vae.encode(pictures()))
    assert VAE(tiny_qwen_vae(seed=1)).fingerprint != vae.fingerprint


def test_model_and_pipeline_folders_open_alike(folder):
    opened = VAE.open(str(folder))
    assert opened.fingerprint == VAE.open(str(folder.parent)).fingerprint == VAE(tiny_qwen_vae()).fingerprint


def test_what_cannot_be_had_is_named(tmp_path, folder, monkeypatch):
    with pytest.raises(UsageError, match="is neither a folder nor a hub tag"):
        VAE.open(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="neither config.json nor vae/"):
        VAE.open(str(tmp_path))
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(UsageError, match="unknown class UNet2DModel"):
        VAE.open(str(tmp_path))
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(UsageError, match="diffusers .* cannot open .* as a VAE"):
        VAE.open(str(tmp_path))  # no weights
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="give its folder"):
        VAE.open("nobody/nothing")
    with pytest.raises(ValueError, match="multiples of 16"):
        VAE(tiny_qwen_vae()).encode(pictures(side=40))


def test_a_recipe_names_the_vae_and_the_checkpoint_brings_it_along(tmp_path, snapshot, folder):
    recipe = RECIPE.change(autoencoder=str(folder))
    trained = run(tmp_path / "a", snapshot, recipe=recipe, steps=2)
    expected = VAE(tiny_qwen_vae()).fingerprint
    assert trained.config["autoencoder"] == trained.autoencoder().fingerprint == expected
    assert sample(trained, ["a red disc at the left"], size=(32, 32), steps=1).shape == (1, 32, 32, 3)

    final = {**contents(trained)}
    for path in (tmp_path / "a" / "final").iterdir():
        path.unlink()
    (tmp_path / "a" / "final").rmdir()
    assert Checkpoint(tmp_path / "a" / "step-00000001").step == 1
    assert contents(run(tmp_path / "a", snapshot, recipe=recipe, steps=2)) == final  # resumed: the same bytes

    child = run(tmp_path / "b", snapshot, recipe=recipe, steps=1, init=trained.path)
    assert child.autoencoder().fingerprint == expected
    with pytest.raises(UsageError, match="the recipe names patch"):
        run(tmp_path / "c", snapshot, recipe=RECIPE, steps=1, init=trained.path)
    with pytest.raises(UsageError, match="16 channels and factor 16"):
        run(tmp_path / "d", snapshot, recipe=recipe.change(channels=8), steps=1)
