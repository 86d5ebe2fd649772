"""The optimised model and its reference: the model without its LoRA, or a frozen copy if every weight is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from training.adapter import adapt, merged
from training.lora import LoRA
from training.models.mmdit import MMDiT
from training.state import put, trained


class Policy:
    """`model` with its `trainable` parameters by name. Without `lora` every weight trains, against a frozen copy."""

    def __init__(self, model: MMDiT, *, lora: LoRA | None, seed: int = 0) -> None:
        self.model = model
        self._adapter = adapt(model, lora, seed) if lora else None
        self._reference = model if lora else copy.deepcopy(model).requires_grad_(False)
        self.trainable = trained(model)

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

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Set the trainable parameters."""
        put(self.trainable, weights)

    def merged(self, trainable: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """All weights of a plain `MMDiT`, with adapters merged in; `trainable`: other values of what trains."""
        return merged(self.model, trainable)
