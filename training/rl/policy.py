"""The optimised model and its reference: the model without its LoRA, or a frozen copy if every weight is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from flywheel.core.torchvision_shim import declare_operators
from training.models.mmdit import MMDiT
from training.randomness import generator

TARGETS = ("qkv", "attention_out", "gate_up", "down")  # every linear layer of a block


class Policy:
    """`model` with its `trainable` parameters by name. `rank` 0 trains every weight against a frozen copy."""

    def __init__(self, model: MMDiT, *, rank: int, seed: int = 0) -> None:
        self.model, self._adapter = model, None
        if rank:
            declare_operators()
            from peft import LoraConfig, get_peft_model

            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(generator(seed, "lora").integers(2**62)))
                config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(TARGETS))
                self._adapter = get_peft_model(model, config)
        self._reference = model if rank else copy.deepcopy(model).requires_grad_(False)
        self.trainable: dict[str, nn.Parameter] = {n: p for n, p in model.named_parameters() if p.requires_grad}

    @contextmanager
    def reference(self) -> Iterator[MMDiT]:
        """The model as it was before RL, without gradients."""
        with torch.no_grad(), nullcontext() if self._adapter is None else self._adapter.disable_adapter():
            yield self._reference

    @contextmanager
    def holding(self, weights: Mapping[str, Tensor]) -> Iterator[MMDiT]:
        """The model with other trainable parameters for a while, such as their moving average."""
        kept = {name: p.detach().clone() for name, p in self.trainable.items()}
        self.load(weights)
        try:
            yield self.model
        finally:
            self.load(kept)

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Set the trainable parameters."""
        for name, parameter in self.trainable.items():
            parameter.copy_(weights[name])

    @torch.no_grad()
    def merged(self) -> dict[str, Tensor]:
        """All weights of a plain `MMDiT`, with adapters merged in."""
        if self._adapter is None:
            return {name: p.detach().clone() for name, p in self.model.named_parameters()}
        from peft.tuners.lora import Linear as LoraLinear

        out = {n: p.detach().clone() for n, p in self.model.named_parameters() if ".lora_" not in n}
        for name, module in self.model.named_modules():
            if isinstance(module, LoraLinear):
                merged = out.pop(f"{name}.base_layer.weight") + module.get_delta_weight("default")
                out[f"{name}.weight"] = merged
        return out
