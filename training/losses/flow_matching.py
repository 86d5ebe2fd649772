"""Flow matching on straight paths: x_t = (1 − t)·x0 + t·ε, velocity v = ε − x0, t = 1 is noise. Pure functions."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x_t [B, …], t [B]) → velocity [B, …], the condition bound inside."""


def interpolate(x0: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
    """x_t = (1 − t)·x0 + t·ε."""
    t = t_B.reshape(-1, *[1] * (x0.dim() - 1))
    return (1 - t) * x0 + t * noise


def logit_normal(normal: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Standard normals → times in (0, 1): sigmoid of a normal. The report does not give p(t); this choice is ours."""
    return (mean + std * normal).sigmoid()


def flow_matching_loss(velocity: Velocity, x0: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
    """Mean squared error of the velocity per row, [B]."""
    error = velocity(interpolate(x0, noise, t_B), t_B) - (noise - x0)
    return error.square().flatten(1).mean(1)
