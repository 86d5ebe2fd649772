"""Adapters of LoRA: put into a model, merged into its weights, and saved for diffusers.

A checkpoint holds merged weights, so that whatever reads checkpoints reads these too, and the adapter beside them:
`trainable` and `trainable_ema`, relative to the checkpoint that the run started from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flywheel.core.errors import UsageError
from flywheel.core.files import write_bytes
from flywheel.core.torchvision_shim import declare_operators
from training.distributed import World, full_tensor
from training.lora import LoRA
from training.models.convert import diffusers_config, split_rows
from training.models.mmdit import MMDiT, MMDiTConfig
from training.randomness import generator
from training.state import trained

FILE = "pytorch_lora_weights.safetensors"  # what `load_lora_weights` of diffusers looks for
_A, _B = ".lora_A.default.weight", ".lora_B.default.weight"


def adapt(model: MMDiT, lora: LoRA, seed: int, *key: str) -> Any:
    """Freeze `model` and put adapters into it, a function of (seed, key), which change nothing yet; peft's handle."""
    declare_operators()
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "lora", *key).integers(2**62)))
        config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets))  # type: ignore[arg-type]
        adapted = get_peft_model(model, config)
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            setattr(module, "cast_input_dtype_enabled", False)  # noqa: B010 - autocast does it, without a copy in float32
    return adapted


@torch.no_grad()
def merged(
    model: nn.Module, adapter: Mapping[str, Tensor] | None = None, world: World | None = None
) -> dict[str, Tensor]:
    """All weights of a plain `MMDiT`, with adapters merged in, on the CPU of the first process; nothing on the others.

    adapter: other values of the trained parameters, such as their moving average. Every process must call it.
    """
    values: Mapping[str, Tensor] = trained(model) if adapter is None else adapter
    scales = {name: module.scaling["default"] for name, module in model.named_modules() if hasattr(module, "lora_A")}
    out = {}
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            continue
        layer = name.removesuffix(".base_layer.weight")
        whole = full_tensor((parameter if layer in scales else values.get(name, parameter)).detach())
        if layer in scales:
            b, a = (full_tensor(values[layer + part].detach()) for part in (_B, _A))
            whole = whole + (b @ a) * scales[layer]
            name = f"{layer}.weight"
        if world is None or world.first:
            out[name] = whole.cpu().clone()
    return out


def save_adapter(adapter: Mapping[str, Tensor], lora: LoRA, config: MMDiTConfig, folder: Path) -> Path:
    """Write an adapter for `load_lora_weights` of diffusers; returns the file.

    Its scale is inside of the weights, so that readers which look for no alpha are right. Errors: `UsageError` if
    diffusers has no such model.
    """
    from safetensors.torch import save

    try:
        diffusers_config(config)
    except ValueError as error:
        raise UsageError(f"this adapter belongs to a model that diffusers cannot open: {error}") from error
    # safetensors stores no tensor under two names.
    parts = {
        f"transformer.{name}": t.contiguous().clone() for name, t in _diffusers_names(adapter, lora, config).items()
    }
    write_bytes(folder / FILE, save(parts, metadata={"format": "pt"}))
    return folder / FILE


def _diffusers_names(adapter: Mapping[str, Tensor], lora: LoRA, config: MMDiTConfig) -> dict[str, Tensor]:
    """Adapters of diffusers' layers: rows of B go where those of the weight go; parts of a layer share its A."""
    out = {}
    for layer in [name.removesuffix(_A) for name in adapter if name.endswith(_A)]:
        _, block, part = layer.split(".")
        for theirs, rows in split_rows(part, adapter[layer + _B] * (lora.alpha / lora.rank), config.head_dim).items():
            out[f"transformer_blocks.{block}.{theirs}.lora_B.weight"] = rows
            out[f"transformer_blocks.{block}.{theirs}.lora_A.weight"] = adapter[layer + _A]
    return out
