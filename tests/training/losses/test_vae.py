"""The VAE's losses by their formulas."""

from __future__ import annotations

import pytest
import torch

from training.losses.vae import alignment_loss, alignment_weight, kl_loss, perceptual_loss, reconstruction_loss


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
