"""Named parameters and their AdamW state as tensors for a checkpoint, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_KEYS = ("step", "exp_avg", "exp_avg_sq")


def adamw(
    named: Mapping[str, nn.Parameter], rate: float, decay: float, betas: tuple[float, float]
) -> torch.optim.AdamW:
    """An AdamW over `named`, in their order."""
    return torch.optim.AdamW(named.values(), lr=rate, weight_decay=decay, betas=betas, fused=True)


def moments(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Its state by `<key>.<parameter>`; parameters that no step has touched have none."""
    return {f"{k}.{n}": optimizer.state[p][k] for n, p in named.items() for k in _KEYS if k in optimizer.state[p]}


def load_moments(
    optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]
) -> None:
    """The inverse of `moments`."""
    for name, parameter in named.items():
        if f"step.{name}" in state:
            optimizer.state[parameter] = {key: state[f"{key}.{name}"] for key in _KEYS}


def copies(named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Detached copies, such as an EMA starts from."""
    return {name: p.detach().clone() for name, p in named.items()}


@torch.no_grad()
def move_ema(ema: Mapping[str, Tensor], named: Mapping[str, nn.Parameter], decay: float) -> None:
    """ema ← decay·ema + (1 − decay)·weights, in place."""
    torch._foreach_lerp_([ema[name] for name in named], list(named.values()), 1 - decay)
