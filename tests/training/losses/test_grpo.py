"""Stochastic steps, densities and objectives against float64 references written from the formulae; an analytic toy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from training.losses import grpo
from training.losses.grpo import (
    clipped_loss,
    cps_step,
    group_advantages,
    guard_log_ratio,
    guard_weight,
    log_prob,
    log_ratio,
    nft_loss,
    optimality,
    sde_step,
    standard_log_prob,
    velocity_kl,
)
from training.rl.recipe import RL_RECIPES

A = 0.7
TIMES = [(1.0, 0.95), (0.9, 0.8), (0.5, 0.4), (0.05, 0.02)]


def draw(count: int = len(TIMES), size=(4, 8, 8), seed: int = 0) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(count, *size, generator=rng) for _ in range(4))


def sde_reference(x, v, t, s):
    """Flow-GRPO's mean and standard deviation of one row, float64."""
    sigma = A * math.sqrt(t / (1 - (s if t == 1 else t)))
    dt = s - t
    mean = x * (1 + sigma**2 / (2 * t) * dt) + v * (1 + sigma**2 * (1 - t) / (2 * t)) * dt
    return mean, sigma * math.sqrt(-dt)


def cps_reference(x, v, t, s):
    clean, noise = x - t * v, x + (1 - t) * v
    std = s * math.sin(A * math.pi / 2)
    return (1 - s) * clean + math.sqrt(s**2 - std**2) * noise, std


@pytest.mark.parametrize(("make", "reference"), [(sde_step, sde_reference), (cps_step, cps_reference)])
def test_step_and_log_prob_agree_with_float64(make, reference):
    x, v, z, _ = draw()
    step = make(*(torch.tensor(c) for c in zip(*TIMES)), A)
    drawn = step.sample(x, v, z)
    density = log_prob(step, x, drawn, v)
    torch.testing.assert_close(standard_log_prob(step, z), density, atol=2e-6, rtol=2e-6)
    for i, (t, s) in enumerate(TIMES):
        mean, std = reference(x[i].double().numpy(), v[i].double().numpy(), t, s)
        expected = mean + std * z[i].double().numpy()
        assert np.abs(drawn[i].numpy() - expected).max() < 1e-6 * max(1, np.abs(expected).max())
        wanted = norm.logpdf(drawn[i].double().numpy(), mean, std).mean()
        assert abs(float(density[i]) - wanted) < 1e-6 * max(1, abs(wanted))
    assert density.dtype == torch.float32


def test_stochastic_steps_keep_the_marginals_of_the_flow():
    """The exact flow of N(0, 1/4): SDE to first order in dt; CPS, on a point mass, exactly and for any step."""
    t, s, n = 0.6, 0.59, 400_000
    std = lambda u: math.sqrt(((1 - u) / 2) ** 2 + u**2)  # noqa: E731
    rng = torch.Generator().manual_seed(0)
    x, noise = torch.randn(1, n, generator=rng), torch.randn(1, n, generator=rng)
    velocity = std(t) * x * (t - (1 - t) / 4) / std(t) ** 2
    moved = sde_step(torch.tensor([t]), torch.tensor([s]), A).sample(std(t) * x, velocity, noise)
    assert abs(float(moved.std()) - std(s)) < 2e-3 < std(t) - std(s)
    moved = cps_step(torch.tensor([t]), torch.tensor([0.2]), A).sample(t * x, x, noise)
    assert abs(float(moved.std()) - 0.2) < 1e-3


def test_log_ratio_is_the_difference_of_log_probs_and_exactly_zero_without_change():
    x, v, z, change = (a.double().float() for a in draw())
    step = sde_step(*(torch.tensor(c) for c in zip(*TIMES)), A)
    new, drawn = v + 0.05 * change, step.sample(x, v, z)
    at = step.standardised(x, drawn, v)
    for i, (t, s) in enumerate(TIMES):

        def exact(u, i=i, t=t, s=s):
            mean, std = sde_reference(x[i].double().numpy(), u[i].double().numpy(), t, s)
            return norm.logpdf(drawn[i].double().numpy(), mean, std).mean()

        assert abs(float(log_ratio(step, at, new, v)[i]) - (exact(new) - exact(v))) < 2e-6
    assert torch.equal(log_ratio(step, at, v, v), torch.zeros(len(TIMES)))
    assert torch.equal(log_ratio(step, at, v.bfloat16(), v.bfloat16()), torch.zeros(len(TIMES)))


def test_guard_has_mean_zero_and_one_scale_for_every_time():
    """Plain log-ratios drift below zero and spread with 1/std; the guard's do neither."""
    n = 4000
    x, v, z, change = draw(n, (16,), seed=1)
    plain, guarded = [], []
    for t, s in ((0.95, 0.9), (0.3, 0.25)):
        step = sde_step(torch.full((n,), t), torch.full((n,), s), A)
        at = step.standardised(x, step.sample(x, v, z), v)
        new = v + change / step.on_v.abs()[:, None]  # the mean moves equally far at both times
        plain.append(log_ratio(step, at, new, v))
        guarded.append(guard_log_ratio(step, at, new, v))
        bias = (step.mean(x, new) - step.mean(x, v)).square().mean(1) / (2 * step.std**2)
        torch.testing.assert_close(guarded[-1], (plain[-1] + bias) * step.std, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(guard_weight(step), torch.full((n,), 1 / (t - s)))
    assert all(p.mean() < -0.5 for p in plain) and all(abs(g.mean()) < 0.02 for g in guarded)
    assert abs(guarded[0].std() / guarded[1].std() - 1) < 0.02 < abs(plain[0].std() / plain[1].std() - 1)


def test_clipping_stops_the_gradient_outside_the_range_only_where_it_would_gain():
    ratio = torch.tensor([0.9, 0.9, 1.0, 1.1, 1.1]).log().requires_grad_()
    advantage = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])
    loss = clipped_loss(ratio, advantage, 0.05, 0.05)
    torch.testing.assert_close(loss, torch.tensor([-0.9, 0.95, -1.0, -1.05, 1.1]))
    loss.sum().backward()
    assert (ratio.grad != 0).tolist() == [True, False, True, False, True]


def test_kl_reaches_the_policy_and_not_the_reference():
    v, reference = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    velocity_kl(v, reference).sum().backward()
    assert v.grad.abs().min() > 0 and reference.grad is None


def test_advantages_are_normalised_in_their_group_and_flat_groups_dropped():
    nan = float("nan")
    first = torch.tensor([[1.0, 2.0, 3.0, 6.0], [0.5, 0.5, 0.5, 0.5], [0.1, 0.2, nan, 0.3], [nan] * 4])
    second = torch.tensor([[0.0, 0.0, 100.0, 100.0], [1.0, 1.0, 1.0, 1.001], [nan] * 4, [nan] * 4])
    weights = torch.tensor([[1.0, 2.0]] * 4)
    advantages = group_advantages(torch.stack([first, second], 2), weights, min_range=0.01)
    z = (first[0] - 3) / first[0].std(correction=0)
    torch.testing.assert_close(advantages.total[0], z + 2 * torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    assert advantages.used.tolist() == [[True, True], [False, False], [True, False], [False, False]]
    assert advantages.kept.tolist() == [True, False, True, False]
    assert torch.equal(advantages.total[[1, 3]], torch.zeros(2, 4)) and advantages.total[2, 2] == 0
    assert abs(float(advantages.total[2].sum())) < 1e-6
    assert not group_advantages(first[..., None], torch.zeros(4, 1), min_range=0.01).kept.any()
    for factor in (1e-9, 1e9, 1e305):
        scaled = group_advantages(first[:1, :, None].double() * factor, torch.ones(1, 1), min_range=0.0)
        torch.testing.assert_close(scaled.total[0], z)


# Analytic toys ------------------------------------------------------------------------------------------------------
TARGET, SPREAD = 1.5, 0.3


def velocity_of(mean: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The exact flow of data N(mean, SPREAD²), [B, D]: E[ε − x0 | x_t]."""
    t = t[:, None]
    variance = ((1 - t) * SPREAD) ** 2 + t**2
    centred = x - (1 - t) * mean
    return t * centred / variance - (mean + (1 - t) * SPREAD**2 * centred / variance)


@pytest.mark.parametrize("algorithm", ["sde", "cps", "guard"])
def test_grpo_climbs_to_the_optimum_of_an_analytic_toy(algorithm):
    """Policy: the flow of a Gaussian, its mean the parameter. Reward −|x − 1.5|² is best where the mean is 1.5."""
    mean = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([mean], lr=0.05)
    rng = torch.Generator().manual_seed(0)
    times, group, window = torch.linspace(1, 0, 9), 64, 5
    make = cps_step if algorithm == "cps" else sde_step
    for _ in range(80):
        x, kept = torch.randn(group, 2, generator=rng), []
        with torch.no_grad():
            for i, (t, s) in enumerate(zip(times[:-1], times[1:])):
                v = velocity_of(mean, x, t.expand(group))
                if i < window:
                    step = make(t.expand(group), s.expand(group), A)
                    moved = step.sample(x, v, torch.randn(group, 2, generator=rng))
                    kept.append((step, x, t.expand(group), v, step.standardised(x, moved, v)))
                else:
                    moved = x + (s - t) * v
                x = moved
        rewards = -(x - TARGET).square().sum(1)
        advantage = group_advantages(rewards[None, :, None], torch.ones(1, 1), min_range=0).total[0]
        for _ in range(2):
            loss = torch.zeros(())
            for step, at, t, old, z in kept:
                v = velocity_of(mean, at, t)
                if algorithm == "guard":
                    rows = clipped_loss(guard_log_ratio(step, z, v, old), advantage, 0.1, 0.1) * guard_weight(step)
                else:
                    rows = clipped_loss(log_ratio(step, z, v, old), advantage, 0.2, 0.2)
                loss = loss + rows.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert (mean - TARGET).abs().max() < 0.15


def test_nft_climbs_to_the_optimum_of_an_analytic_toy():
    mean = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([mean], lr=0.05)
    rng = torch.Generator().manual_seed(0)
    for _ in range(150):
        x0 = mean.detach() + SPREAD * torch.randn(64, 2, generator=rng)
        reward = -(x0 - TARGET).square().sum(1)
        advantage = group_advantages(reward[None, :, None], torch.ones(1, 1), min_range=0).total[0]
        t = torch.rand(64, generator=rng) * 0.9 + 0.05
        x_t = (1 - t)[:, None] * x0 + t[:, None] * torch.randn(64, 2, generator=rng)
        with torch.no_grad():
            old = velocity_of(mean, x_t, t)
        loss = nft_loss(velocity_of(mean, x_t, t), old, x_t, t, x0, optimality(advantage, 2.0), 1.0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (mean - TARGET).abs().max() < 0.15


def test_nft_pulls_towards_good_samples_and_from_bad_ones():
    x0, old, t = torch.ones(1, 4), torch.zeros(1, 4), torch.tensor([0.5])
    x_t = torch.full((1, 4), 0.8)
    for good, sign in ((1.0, 1.0), (0.0, -1.0)):
        v = torch.zeros(1, 4, requires_grad=True)
        nft_loss(v, old, x_t, t, x0, torch.tensor([good]), 0.5).sum().backward()
        # x̂0 = 0.8 − 0.5·v lies below the sample: a good one asks for a smaller velocity, a bad one for a larger.
        assert bool((v.grad.sign() == sign).all())
    assert grpo.optimality(torch.tensor([-9.0, 0.0, 2.5, 9.0]), 5.0).tolist() == [0.0, 0.5, 0.75, 1.0]


def test_one_failure_among_many_pulls_as_much_as_it_pushes():
    rewards = torch.tensor([[0.0] + [1.0] * 11])[..., None]
    advantage = group_advantages(rewards, torch.ones(1, 1), min_range=0.01).total[0]
    limit = RL_RECIPES["rl-tiny"].nft_limit
    assert abs(float(grpo.optimality(advantage, limit).mean()) - 0.5) < 1e-6
    assert float(grpo.optimality(advantage, 2.0).mean()) > 0.52  # cut off: the group as a whole is "good"
