"""The small VAE: its losses, exact resume, and a result that everything else opens."""

from __future__ import annotations

import pytest
import torch

from flywheel.core.errors import UsageError
from tests.training.test_trainer import TINY, run
from training.checkpoint import read_metrics
from training.losses.vae import alignment_loss, alignment_weight, kl_loss, perceptual_loss, reconstruction_loss
from training.models.features import Features
from training.models.vae import VAE
from training.vae import training as vae_training
from training.vae.training import VAERecipe, crops, load_vae_recipe, train_vae

SMALL = VAERecipe(
    channels=8, base=8, decoder_base=8, side=32, batch=2, steps=4, checkpoint_every=2, learning_rate=5e-3, warmup=2
)


@pytest.fixture(scope="module")
def pictures():
    rows = torch.arange(48)[:, None].float()
    waves = [127 + 120 * torch.sin(rows * f + torch.arange(40) * g) for f, g in ((0.1, 0.2), (0.3, 0.05), (0.02, 0.4))]
    return torch.stack([torch.stack([w, w.flip(0), w.flip(1)]) for w in waves]).to(torch.uint8)


@pytest.fixture(scope="module")
def features():
    return Features()


def test_losses_are_their_formulas():
    x, y = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[0.5, -1.0]]]])
    assert reconstruction_loss(x, y).item() == pytest.approx((0.5 + 2) / 2)
    # At one position the features are equal up to a factor, at the other they are orthogonal.
    a = torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]]])
    b = torch.tensor([[[[3.0, 0.0]], [[0.0, 2.0]]]])
    assert perceptual_loss([a], [b]).item() == pytest.approx((0 + 2) / 2)
    assert perceptual_loss([a, a], [b, a]).item() == pytest.approx(0.5)
    assert alignment_loss(a, b).item() == pytest.approx((0 + 1) / 2)
    assert alignment_loss(a, b, margin=0.25).item() == pytest.approx((0 + 0.75) / 2)
    assert kl_loss(torch.zeros(2, 3), torch.zeros(2, 3)).item() == 0
    mean, log_variance = torch.tensor([0.5]), torch.tensor([-1.0])
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    assert kl_loss(mean, log_variance).item() == pytest.approx(expected.item())


def test_alignment_is_strong_first_and_relaxes():
    weights = [alignment_weight(0.5, 0.1, p, 0.5) for p in (0.0, 0.25, 0.5, 0.9)]
    assert weights == pytest.approx([0.5, 0.3, 0.1, 0.1])


def test_features_see_what_is_in_a_picture_and_only_images_get_gradients(features, pictures):
    images = (pictures[:, :, :32, :32].float() / 127.5 - 1).requires_grad_()
    levels = features(images)
    assert [tuple(x.shape[1:]) for x in levels] == [(16, 16, 16), (24, 8, 8), (40, 4, 4), (112, 2, 2)]
    perceptual_loss(features(images.detach().flip(0)), levels).backward()
    assert images.grad.abs().sum() > 0 and not any(p.requires_grad for p in features.parameters())
    near, far = images.detach() + 0.02, images.detach().roll(1, 0)
    distance = [perceptual_loss(levels, features(x)).item() for x in (near, far)]
    assert distance[0] < distance[1] / 4


def test_crops_are_a_function_of_their_key(pictures):
    one, again, other = (crops([pictures[:1], pictures[1:]], 32, 6, ("k", i)) for i in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert one.shape == (6, 3, 32, 32) and one.min() >= -1 and one.max() <= 1


def test_stopped_and_run_again_equals_uninterrupted_and_a_finished_run_returns(tmp_path, pictures):
    def stop(done, steps, line):
        if done == 3:
            raise KeyboardInterrupt

    whole = train_vae(tmp_path / "a", pictures, SMALL)
    with pytest.raises(KeyboardInterrupt):
        train_vae(tmp_path / "b", pictures, SMALL, progress=stop)
    assert not (tmp_path / "b" / "final").exists()
    resumed = train_vae(tmp_path / "b", pictures, SMALL)
    files = sorted(p.name for p in whole.iterdir())
    assert "config.json" in files and files == sorted(p.name for p in resumed.iterdir())
    assert all((whole / name).read_bytes() == (resumed / name).read_bytes() for name in files)
    assert [line["step"] for line in read_metrics(tmp_path / "b" / "metrics.jsonl")] == [1, 2, 3, 4]
    assert train_vae(tmp_path / "b", pictures, SMALL, progress=stop) == resumed
    with pytest.raises(UsageError, match="holds another VAE"):
        train_vae(tmp_path / "b", pictures, SMALL.change(kl=0.1))
    with pytest.raises(UsageError, match="crops of 64 pixels"):
        train_vae(tmp_path / "c", pictures, SMALL.change(side=64))


def test_it_learns_and_its_latents_have_unit_variance(tmp_path, pictures):
    folder = train_vae(tmp_path, pictures, SMALL.change(base=16, decoder_base=16), steps=30)
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


def test_a_recipe_trains_its_own(tmp_path, snapshot, monkeypatch):
    monkeypatch.setitem(vae_training.VAE_RECIPES, "tiny", SMALL)
    recipe = TINY.change(autoencoder="tiny-vae", channels=8, factor=16)
    trained = run(tmp_path / "a", snapshot, recipe=recipe, steps=2)
    assert trained.autoencoder().fingerprint == VAE.open(str(tmp_path / "a" / "vae" / "final")).fingerprint
    child = run(tmp_path / "b", snapshot, recipe=recipe, steps=1, init=trained.path)
    assert child.autoencoder().fingerprint == trained.autoencoder().fingerprint
    assert not (tmp_path / "b" / "vae").exists()
    with pytest.raises(UsageError, match="trained on latents of tiny-vae, the recipe names patch"):
        run(tmp_path / "c", snapshot, recipe=TINY, steps=1, init=trained.path)


def test_recipes_are_named_or_read(tmp_path):
    assert load_vae_recipe("tiny") == VAERecipe()
    path = tmp_path / "vae.toml"
    path.write_text("widths = [1, 2, 2, 2]\nkl = 0.0\n")
    assert load_vae_recipe(str(path)) == VAERecipe(widths=(1, 2, 2, 2), kl=0.0)
    for text, message in {"width = 3": "has no width", "[": "cannot be read"}.items():
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            load_vae_recipe(str(path))
    with pytest.raises(UsageError, match="unknown VAE preset 'huge'"):
        load_vae_recipe("huge")
