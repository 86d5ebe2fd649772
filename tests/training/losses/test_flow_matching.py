"""Flow matching against closed forms: Gaussian data has a known best velocity, loss and transport."""

from __future__ import annotations

import torch

from training.losses.flow_matching import flow_matching_loss, interpolate, logit_normal

MEAN, STD = 1.5, 0.4


def best_velocity(x, t):
    """E[ε − x0 | x_t] for x0 ~ N(MEAN, STD²): regression of one Gaussian on another."""
    t = t.reshape(-1, *[1] * (x.dim() - 1))
    variance = (1 - t) ** 2 * STD**2 + t**2
    return -MEAN + (t - (1 - t) * STD**2) / variance * (x - (1 - t) * MEAN)


def residual_variance(t: float) -> float:
    """Var[ε − x0 | x_t]: what no model can predict."""
    return 1 + STD**2 - (t - (1 - t) * STD**2) ** 2 / ((1 - t) ** 2 * STD**2 + t**2)


def draw(rows=2000):
    generator = torch.Generator().manual_seed(0)
    x0 = MEAN + STD * torch.randn(rows, 16, generator=generator)
    return x0, torch.randn(rows, 16, generator=generator)


def test_ends_of_the_path():
    x0, noise = draw(4)
    assert torch.equal(interpolate(x0, noise, torch.zeros(4)), x0)
    assert torch.equal(interpolate(x0, noise, torch.ones(4)), noise)


def test_best_velocity_reaches_the_analytic_loss_and_no_other_beats_it():
    x0, noise = draw()
    for t in (0.1, 0.5, 0.9):
        times = torch.full((len(x0),), t)
        loss = flow_matching_loss(best_velocity, x0, noise, times).mean().item()
        assert abs(loss - residual_variance(t)) < 0.03
        shifted = flow_matching_loss(lambda x, t: best_velocity(x, t) + 0.2, x0, noise, times).mean().item()
        assert abs(shifted - loss - 0.04) < 0.01


def test_integrating_the_velocity_turns_noise_into_data():
    x = draw()[1]
    times = torch.linspace(1, 0, 201)
    for t, following in zip(times[:-1], times[1:], strict=True):
        x = x + (following - t) * best_velocity(x, torch.full((len(x),), t.item()))
    assert abs(x.mean().item() - MEAN) < 0.02
    assert abs(x.std().item() - STD) < 0.02


def test_logit_normal_median_and_spread():
    t = logit_normal(torch.randn(20_000, generator=torch.Generator().manual_seed(0)), mean=0.5)
    assert abs(t.median().item() - torch.tensor(0.5).sigmoid().item()) < 0.01
    assert t.min() > 0 and t.max() < 1
