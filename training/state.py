"""What changes with a step: weights, their moving average, the optimiser's moments."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def build_optimizer(model: nn.Module, *, betas: tuple[float, float], weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with its moments in place at zero, so that a checkpoint can be read into them. The loop sets the rate."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=betas, weight_decay=weight_decay, fused=True)
    for p in model.parameters():
        step = torch.zeros((), dtype=torch.float32, device=p.device)
        moments = {key: torch.zeros_like(p, memory_format=torch.preserve_format) for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[p] = {"step": step, **moments}
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def average_of(model: nn.Module) -> dict[str, Tensor]:
    """An EMA that starts at the model's weights."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@torch.no_grad()
def update_ema(ema: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """ema ← decay·ema + (1 − decay)·weights, in place."""
    named = dict(model.named_parameters())
    torch._foreach_lerp_([ema[name] for name in named], list(named.values()), 1 - decay)


def training_state(
    model: nn.Module, ema: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, dict[str, Tensor]]:
    """Everything that changes with a step, as tensors by name; they share memory with what trains."""
    moments = {}
    for name, parameter in model.named_parameters():
        moments |= {f"{key}.{name}": value for key, value in optimizer.state[parameter].items()}
    return {"model": {k: v.detach() for k, v in model.named_parameters()}, "ema": ema, "optimizer": moments}
