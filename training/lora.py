"""LoRA as settings of a recipe: low-rank adapters on the layers of a model's blocks, the only weights that train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from flywheel.core.errors import UsageError

TARGETS = ("qkv", "attention_out", "gate_up", "down")  # every linear layer of a block
DEFAULTS: Mapping[str, Any] = {"lora_rank": 0, "lora_alpha": 0.0, "lora_targets": TARGETS}


class Adapted(Protocol):
    """The settings of a recipe. lora_rank 0 trains every weight; lora_alpha 0 is twice the rank."""

    @property
    def lora_rank(self) -> int: ...

    @property
    def lora_alpha(self) -> float: ...

    @property
    def lora_targets(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class LoRA:
    """W + alpha/rank · B A for the weights W of the layers named by `targets`."""

    rank: int
    alpha: float
    targets: tuple[str, ...]

    @classmethod
    def of(cls, recipe: Adapted) -> LoRA | None:
        """The adapter of a recipe; None if it trains every weight."""
        if not recipe.lora_rank:
            return None
        return cls(recipe.lora_rank, recipe.lora_alpha or 2.0 * recipe.lora_rank, tuple(recipe.lora_targets))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def require_lora(recipe: Adapted) -> None:
    """Check the settings of a recipe. Errors: `UsageError`."""
    if unknown := sorted(set(recipe.lora_targets) - set(TARGETS)):
        raise UsageError(f"lora_targets: unknown layer {unknown[0]!r}: use {', '.join(TARGETS)}")
    if recipe.lora_rank and not recipe.lora_targets:
        raise UsageError(f"lora_targets is empty: name layers to adapt, such as {TARGETS[0]}")


def identified(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Settings that identify a run, without those of `names` that have their defaults, as before there were any."""
    return {k: v for k, v in values.items() if k not in names or v != DEFAULTS[k]}
