"""What a training step changes: weights, their moving average, the optimiser's moments."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import unwrap

import torch
from torch import Tensor, nn

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class AdamW(torch.optim.AdamW):
    """PyTorch's AdamW, for steps that are never compiled.

    PyTorch wraps these methods for its compiler, whose import takes each process a CPU-second at the first of them.
    """

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))


def build_optimizer(model: nn.Module, *, betas: tuple[float, float], weight_decay: float) -> torch.optim.Optimizer:
    """AdamW of what trains, with zero moments already allocated, so that a checkpoint can be loaded into them.

    Loops set the rate.
    """
    parameters = list(trained(model).values())
    optimizer = AdamW(parameters, lr=0.0, betas=betas, weight_decay=weight_decay, fused=True)
    for p in parameters:
        step = torch.zeros((), dtype=torch.float32, device=p.device)
        moments = {key: torch.zeros_like(p, memory_format=torch.preserve_format) for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[p] = {"step": step, **moments}
    return optimizer


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name; the others are frozen."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def falling(final: float, step: int, steps: int) -> float:
    """Share of the learning rate at a step: 1 at the first, falling linearly to `final` at the last."""
    return 1 - (1 - final) * step / max(1, steps - 1)


def adamw(named: Mapping[str, nn.Parameter], rate: float, decay: float, betas: tuple[float, float]) -> AdamW:
    """An AdamW over `named`, in their order."""
    return AdamW(named.values(), lr=rate, weight_decay=decay, betas=betas, fused=True)


def moments(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The optimiser's state by `<key>.<parameter>`; parameters not yet updated have none."""
    return {f"{k}.{n}": optimizer.state[p][k] for n, p in named.items() for k in _MOMENTS if k in optimizer.state[p]}


def load_moments(
    optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]
) -> None:
    """The inverse of `moments`."""
    for name, parameter in named.items():
        if f"step.{name}" in state:
            optimizer.state[parameter] = {key: state[f"{key}.{name}"].to(parameter.device) for key in _MOMENTS}


def copies(named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Detached copies, for example to start an EMA."""
    return {name: p.detach().clone() for name, p in named.items()}


@torch.no_grad()
def put(named: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    """Set parameters to other values."""
    for name, parameter in named.items():
        parameter.copy_(weights[name])


@torch.no_grad()
def move_ema(ema: Mapping[str, Tensor], named: Mapping[str, nn.Parameter], decay: float) -> None:
    """ema ← decay·ema + (1 − decay)·weights, in place."""
    torch._foreach_lerp_([ema[name] for name in named], list(named.values()), 1 - decay)


def training_state(
    model: nn.Module, ema: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, dict[str, Tensor]]:
    """Everything that changes with a step, as tensors by name, sharing memory with model and optimiser.

    Of a model that trains whole, its weights are `model` and `ema`; of an adapted one, `trainable` and `trainable_ema`.
    """
    named = trained(model)
    weights = {k: v.detach() for k, v in named.items()}
    whole = len(named) == len(list(model.parameters()))
    parts = ("model", "ema") if whole else ("trainable", "trainable_ema")
    return {parts[0]: weights, parts[1]: ema, "optimizer": moments(optimizer, named)}
