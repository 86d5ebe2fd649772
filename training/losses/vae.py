"""Losses of a VAE: reconstruction, perceptual, semantic alignment, KL; no GAN. Pure functions that return scalars.

Source: Qwen-Image-2.0 report for the choice of losses; it does not publish their exact forms; ours are named here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import torch.nn.functional as F
from torch import Tensor


def reconstruction_loss(images: Tensor, decoded: Tensor) -> Tensor:
    """Mean absolute error."""
    return (images - decoded).abs().mean()


def perceptual_loss(wanted: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
    """Squared distance of unit-length feature vectors [B, C, h, w], mean over positions and levels: LPIPS without its
    learned channel weights (Zhang et al. 2018)."""
    distances = [
        (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean()
        for a, b in zip(wanted, decoded, strict=True)
    ]
    return reduce(add, distances) / len(distances)


def alignment_loss(projected: Tensor, features: Tensor, margin: float = 0.0) -> Tensor:
    """1 − margin − cosine of latents, projected to the features' channels, and features, where that is positive; both
    [B, C, h, w] (the marginal cosine loss of VA-VAE, Yao et al. 2025)."""
    return F.relu(1 - margin - F.cosine_similarity(projected, features, dim=1)).mean()


def alignment_weight(strong: float, relaxed: float, progress: float, until: float) -> float:
    """From `strong` linearly to `relaxed` at `until` of the run, then constant; `progress` in [0, 1]."""
    return strong + (relaxed - strong) * min(1.0, progress / until)


def kl_loss(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Divergence of the posterior from a standard normal, mean per latent value."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
