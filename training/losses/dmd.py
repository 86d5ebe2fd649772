"""Distribution matching distillation: the student moves where the teacher's score exceeds that of its own samples.

Pure functions on velocities; t = 1 is noise. Source: DMD and DMD2, in x̂0 form; decoupled schedules: Decoupled DMD.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.flow_matching import Velocity, interpolate

Guided = tuple[Velocity, Velocity]
"""Conditional and unconditional velocity of one teacher."""


def clean(velocity: Velocity, x_t: Tensor, t_B: Tensor) -> Tensor:
    """Clean prediction x̂0 = x_t − t·v."""
    return x_t - _rows(t_B, x_t) * velocity(x_t, t_B)


def score(x_t: Tensor, velocity: Tensor, t_B: Tensor) -> Tensor:
    """∇ log p_t(x_t) = −(x_t + (1 − t)·v)/t of the flow whose velocity is given."""
    t = _rows(t_B, x_t)
    return -(x_t + (1 - t) * velocity) / t


def guided(teacher: Guided, cfg: float) -> Velocity:
    """Classifier-free guidance as one velocity; `cfg` 1 skips the unconditional branch."""
    conditional, unconditional = teacher
    if cfg == 1.0:
        return conditional

    def velocity(x_t: Tensor, t_B: Tensor) -> Tensor:
        base = unconditional(x_t, t_B)
        return base + cfg * (conditional(x_t, t_B) - base)

    return velocity


@torch.no_grad()
def gradient(x: Tensor, noise: Tensor, t_B: Tensor, fake: Velocity, real: Velocity) -> Tensor:
    """(x̂0_fake − x̂0_real)/mean|x − x̂0_real|, the mean per row; [B, …].

    x̂0 = (x_t + t²·s)/(1 − t): up to a factor per row this is s_fake − s_real, so that descending it climbs the
    teacher's density. The normalisation gives all t equal weight.
    """
    x_t = interpolate(x, noise, t_B)
    real_x0 = clean(real, x_t, t_B)
    return (clean(fake, x_t, t_B) - real_x0) / _scale(x, real_x0)


@torch.no_grad()
def decoupled_gradient(
    x: Tensor,
    noise: Tensor,
    t_B: Tensor,
    fake: Velocity,
    teacher: Guided,
    cfg: float,
    *,
    guidance_noise: Tensor,
    guidance_t_B: Tensor,
) -> Tensor:
    """The gradient in two parts with separate times: matching (teacher without guidance) at `t_B`, and guidance,
    (cfg − 1)·(unconditional − conditional), at `guidance_t_B`.

    At equal times and noise, their sum is `gradient` with the guided teacher, but each part is normalised on its own.
    """
    conditional, unconditional = teacher
    matching = gradient(x, noise, t_B, fake, conditional)
    if cfg == 1.0:
        return matching
    x_t = interpolate(x, guidance_noise, guidance_t_B)
    with_text, without = (clean(v, x_t, guidance_t_B) for v in (conditional, unconditional))
    return matching + (cfg - 1) * (without - with_text) / _scale(x, with_text)


def matching_loss(x: Tensor, gradient_: Tensor) -> Tensor:
    """½·mean (x − stopgrad(x − gradient))² per row [B]: its gradient in x is `gradient_` over the number of values."""
    target = (x - gradient_).detach()
    return 0.5 * (x - target).square().flatten(1).mean(1)


def euler(velocity: Velocity, x: Tensor, times: Tensor, until: int) -> Tensor:
    """Backward simulation: the student's own first `until` steps on its grid `times` [S + 1], from x at times[0]."""
    for t, following in zip(times[:until], times[1 : until + 1], strict=True):
        x = x + (following - t) * velocity(x, t.expand(len(x)))
    return x


def _scale(x: Tensor, real_x0: Tensor) -> Tensor:
    return _rows((x - real_x0).abs().flatten(1).mean(1).clamp(min=1e-5), x)


def _rows(values_B: Tensor, like: Tensor) -> Tensor:
    return values_B.reshape(-1, *[1] * (like.dim() - 1))
