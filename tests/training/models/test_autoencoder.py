"""The patch autoencoder in closed form."""

from __future__ import annotations

import pytest
import torch

from training.models.autoencoder import PatchAutoencoder, fit, psnr


def images(count=6, channels=5, size=16, factor=4, seed=0):
    """Images whose patches lie in an affine space of `channels` dimensions."""
    generator = torch.Generator().manual_seed(seed)
    dim = 3 * factor * factor
    basis = torch.linalg.qr(torch.randn(dim, channels, generator=torch.Generator().manual_seed(7)))[0]
    strengths = 0.5 / torch.arange(1, channels + 1)
    side = size // factor
    patches = torch.randn(count, side, side, channels, generator=generator) * strengths @ basis.T + 0.1
    return torch.nn.functional.pixel_shuffle(patches.movedim(-1, 1), factor)


def test_enough_channels_lose_nothing_and_latents_are_standardised():
    data = images()
    autoencoder = fit([data], channels=5, factor=4)
    latents = autoencoder.encode(data)
    assert latents.shape == (6, 5, 4, 4)
    assert (autoencoder.decode(latents) - data).abs().max() < 1e-5
    flat = latents.movedim(1, -1).reshape(-1, 5)
    assert flat.mean(0).abs().max() < 1e-4
    assert (flat.T @ flat / len(flat) - torch.eye(5)).abs().max() < 1e-3


def test_lost_energy_is_the_variance_of_the_dropped_components():
    data = images(count=64)
    full, part = fit([data], channels=5, factor=4), fit([data], channels=3, factor=4)
    lost = (part.decode(part.encode(data)) - data).square().sum() / (64 * 16)
    assert abs(lost / full.scale[3:].square().sum() - 1) < 0.01


def test_psnr_by_hand():
    zero = torch.zeros(2, 3, 4, 4)
    assert torch.allclose(psnr(zero, zero + 0.2), torch.full((2,), 20.0), atol=1e-4)


def test_saved_autoencoder_is_the_same(tmp_path):
    autoencoder = fit([images()], channels=4, factor=4)
    autoencoder.save(tmp_path / "a.safetensors")
    loaded = PatchAutoencoder.load(tmp_path / "a.safetensors")
    assert loaded.fingerprint == autoencoder.fingerprint
    assert torch.equal(loaded.encode(images()), autoencoder.encode(images()))
    assert loaded.fingerprint != fit([images(seed=1)], channels=4, factor=4).fingerprint


def test_impossible_shapes_are_named():
    with pytest.raises(ValueError, match="use at most 48"):
        fit([images()], channels=49, factor=4)
    with pytest.raises(ValueError, match="multiples of 4"):
        fit([images()], channels=4, factor=4).encode(torch.zeros(1, 3, 10, 16))
