"""Reconstruction quality of an autoencoder: PSNR and SSIM, as in the report's Table 1."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from training.data.row_group import to_uint8, to_unit
from training.models.autoencoder import Autoencoder, PatchAutoencoder, psnr
from training.models.vae import VAE

WINDOW, SIGMA = 11, 1.5  # of the Gaussian of Wang et al. 2004
K1, K2 = 0.01, 0.03
BATCH = 16


def ssim(images: Tensor, reconstructed: Tensor) -> Tensor:
    """Structural similarity per image, float64 [B]; both in [-1, 1], [B, C, H, W], sides of at least 11.

    Wang et al. 2004: 11×11 Gaussian window of σ 1.5, whole windows only, mean over pixels and colour channels.
    """
    x, y = (images.double() + 1) / 2, (reconstructed.double() + 1) / 2  # SSIM is defined on brightness from 0, black
    c1, c2 = K1**2, K2**2
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    similar = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (similar / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).flatten(1).mean(1)


def _blur(x: Tensor) -> Tensor:
    offsets = torch.arange(WINDOW, dtype=x.dtype) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, -1)
    rows = F.conv2d(x, weights, groups=x.shape[1])
    return F.conv2d(rows, weights.transpose(2, 3), groups=x.shape[1])


@torch.no_grad()
def reconstruction(autoencoder: Autoencoder, images: Tensor) -> Iterator[tuple[float, float]]:
    """(PSNR in dB, SSIM) of each of `images`, uint8 [N, 3, H, W]; reconstructions are rounded to 8 bits first."""
    for part in images.split(BATCH):
        x = to_unit(part)
        y = to_unit(to_uint8(autoencoder.decode(autoencoder.encode(x))))
        yield from zip(psnr(x, y).tolist(), ssim(x, y).tolist(), strict=True)


def parameters(autoencoder: Autoencoder) -> tuple[int, int]:
    """Number of weights of encoder and decoder. Errors: `TypeError` for an autoencoder of another kind."""
    if isinstance(autoencoder, PatchAutoencoder):
        return autoencoder.basis.numel(), autoencoder.basis.numel()
    if not isinstance(autoencoder, VAE):
        raise TypeError(f"weights of a {type(autoencoder).__name__} cannot be counted")
    parts = (autoencoder.model.encoder, autoencoder.model.decoder)
    encoder, decoder = (sum(p.numel() for p in part.parameters()) for part in parts)
    return encoder, decoder
