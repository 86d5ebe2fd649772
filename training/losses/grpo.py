"""Policy optimisation of flow models: stochastic steps, their densities, and the objectives. Pure functions, fp32.

t = 1 is noise, a step goes from t to `following` < t. Sources: Flow-GRPO (SDE step, clipped objective), Flow-CPS (CPS
step), GRPO-Guard (ratio normalisation), DiffusionNFT.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """One step as a Gaussian: x' ~ N(on_x·x + on_v·velocity, std²). Each [B], fp32; `dt` = following − t, below 0."""

    on_x: Tensor
    on_v: Tensor
    std: Tensor
    dt: Tensor

    def mean(self, x: Tensor, velocity: Tensor) -> Tensor:
        """Mean of x' [B, …], fp32 whatever the inputs are."""
        return torch.addcmul(_rows(self.on_v, x) * velocity.float(), _rows(self.on_x, x), x.float())

    def sample(self, x: Tensor, velocity: Tensor, noise: Tensor) -> Tensor:
        """x' drawn with standard normal `noise`."""
        return self.mean(x, velocity).addcmul_(_rows(self.std, x), noise.float())

    def standardised(self, x: Tensor, following_x: Tensor, velocity: Tensor) -> Tensor:
        """(x' − mean)/std [B, …]: where `following_x` lies in this velocity's density."""
        return (following_x.float() - self.mean(x, velocity)).div_(_rows(self.std, x))

    @cached_property
    def log_norm(self) -> Tensor:
        """log of std·√(2π), [B]."""
        return self.std.log() + 0.5 * math.log(2 * math.pi)


def sde_step(t: Tensor, following: Tensor, noise_level: float = 0.7) -> Step:
    """Euler–Maruyama step of Flow-GRPO: σ = a·√(t/(1−t)), std = σ·√−dt. Times [B]; at t = 1 σ uses 1 − following."""
    t, following = t.double(), following.double()
    dt = following - t
    variance = noise_level**2 * t / (1 - torch.where(t >= 1, following, t))
    on_x = 1 + variance / (2 * t) * dt
    on_v = (1 + variance * (1 - t) / (2 * t)) * dt
    return Step(*(c.float() for c in (on_x, on_v, (variance * -dt).sqrt(), dt)))


def cps_step(t: Tensor, following: Tensor, noise_level: float = 0.7) -> Step:
    """Flow-CPS: x' = (1−t')·x̂0 + t'·(cos·x̂1 + sin·ε), angle a·π/2: x' has exactly the noise level of t'."""
    t, following = t.double(), following.double()
    angle = noise_level * math.pi / 2
    kept = following * math.cos(angle)
    on_x = 1 - following + kept
    on_v = kept * (1 - t) - t * (1 - following)
    return Step(*(c.float() for c in (on_x, on_v, following * math.sin(angle), following - t)))


STEPS = {"sde": sde_step, "cps": cps_step}


def log_prob(step: Step, x: Tensor, following_x: Tensor, velocity: Tensor) -> Tensor:
    """log p(following_x | x) under `velocity`, mean over latent dimensions, fp32 [B]."""
    return standard_log_prob(step, step.standardised(x, following_x, velocity))


def standard_log_prob(step: Step, z: Tensor) -> Tensor:
    """The same for x' = mean + std·z, [B]; of a drawn sample, z is the noise it was drawn with."""
    flat = z.flatten(1).float()
    return torch.linalg.vecdot(flat, flat) * (-0.5 / flat.shape[1]) - step.log_norm


def log_ratio(step: Step, z: Tensor, velocity: Tensor, old: Tensor) -> Tensor:
    """log p_new − log p_old of a drawn x' [B]; `z` is `standardised` under `old`.

    Written as a function of velocity − old, so that equal velocities give exactly 0, and rounding of two large
    log-probabilities cannot look like a change of the policy.
    """
    shift = (velocity.float() - old.float()) * _rows(step.on_v / step.std, z)
    return (shift * (z - 0.5 * shift)).flatten(1).mean(1)


def guard_log_ratio(step: Step, z: Tensor, velocity: Tensor, old: Tensor) -> Tensor:
    """GRPO-Guard's normalised log-ratio [B]: without the negative mean that any drift causes, on one scale for all t.

    (log r + |Δmean|²/2std²)·std = mean of z·Δmean. Its loss must be divided by −dt (`guard_weight`).
    """
    shift = (velocity.float() - old.float()) * _rows(step.on_v, z)
    return (z * shift).flatten(1).mean(1)


def guard_weight(step: Step) -> Tensor:
    """Factor of a row's loss in GRPO-Guard, which gives all steps equal weight: 1/−dt, [B]."""
    return -1 / step.dt


def clipped_loss(log_ratio_B: Tensor, advantage_B: Tensor, below: float, above: float) -> Tensor:
    """−min(r·A, clip(r, 1 − below, 1 + above)·A) per row [B]."""
    ratio = log_ratio_B.exp()
    return -torch.minimum(ratio * advantage_B, ratio.clamp(1 - below, 1 + above) * advantage_B)


def velocity_kl(velocity: Tensor, reference: Tensor) -> Tensor:
    """Squared distance to the reference's velocity, mean over latent dimensions [B]: the KL of the paths up to a factor
    of t. `reference` gets no gradient, `velocity` does."""
    return (velocity.float() - reference.detach().float()).square().flatten(1).mean(1)


def nft_loss(
    velocity: Tensor, old: Tensor, x_t: Tensor, t_B: Tensor, x0: Tensor, optimality_B: Tensor, strength: float
) -> Tensor:
    """DiffusionNFT per row [B]: r·|x̂0⁺ − x0|² + (1 − r)·|x̂0⁻ − x0|², each over its own detached mean distance.

    x0 was drawn by the old policy, x_t is x0 noised to t; x̂0± = x_t − t·v±, v± = old ± β(v − old).
    `optimality_B` in [0, 1] (`optimality`). At its optimum, v − old points to better samples.
    """
    t, old = _rows(t_B, x0), old.detach().float()
    change = strength * (velocity.float() - old)
    loss = torch.zeros_like(optimality_B)
    for weight, v in ((optimality_B, old + change), (1 - optimality_B, old - change)):
        error = (x_t - t * v - x0).flatten(1)
        loss = loss + weight * error.square().mean(1) / error.detach().abs().mean(1).clamp(min=1e-5)
    return loss


def optimality(advantage_B: Tensor, limit: float) -> Tensor:
    """Advantages → DiffusionNFT's probability of being good: ½ + ½·clip(A/limit, −1, 1)."""
    return 0.5 + 0.5 * (advantage_B / limit).clamp(-1, 1)


@dataclass(frozen=True)
class Advantages:
    """`total` [P, G]; `used` [P, R]: which reward is used in which group; a group without any is dropped."""

    total: Tensor
    used: Tensor

    @property
    def kept(self) -> Tensor:
        """Groups to train on, bool [P]."""
        return self.used.any(1)


def group_advantages(rewards_PGR: Tensor, weights_PR: Tensor, *, min_range: float) -> Advantages:
    """Each reward z-scored inside its prompt group, then weighted and summed.

    A reward is not used in a group where its range is under `min_range`, its weight is 0, or it has fewer than two
    values, so that noise is not scaled up to unit variance. NaN means not scored: the sample gets 0 from that reward.
    """
    scored = ~rewards_PGR.isnan()
    count = scored.sum(1)
    values = rewards_PGR.double().nan_to_num(0.0)
    scale = values.abs().amax(1).clamp(min=1.0)  # sums and squares of very large rewards stay finite
    values = values / scale[:, None]
    mean = values.sum(1) / count.clamp(min=1)
    centred = torch.where(scored, values - mean[:, None], 0.0)
    std = (centred.square().sum(1) / count.clamp(min=1)).sqrt()
    spread = centred.amax(1) - centred.amin(1)
    used = (count >= 2) & (spread * scale >= max(min_range, 1e-12)) & (weights_PR != 0) & (std > 0)
    z = torch.where(used[:, None], centred / std.clamp(min=1e-300)[:, None], 0.0)
    return Advantages((z * weights_PR.double()[:, None]).sum(2).float(), used)


def _rows(values_B: Tensor, like: Tensor) -> Tensor:
    return values_B.to(like.device, torch.float32).reshape(-1, *[1] * (like.dim() - 1))
