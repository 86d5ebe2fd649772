"""How pictures and text become one sequence of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from training.models.positions import Layout


def sequence_layout(text_tokens: int, references: int, size: tuple[int, int], lead: Sequence[int] = ()) -> Layout:
    """References of `size`, each after its `lead` of text tokens (default: none), then the text, then the target."""
    lead = lead or (0,) * references
    before = [part for run in lead for part in (run, size)]
    return tuple(part for part in (*before, text_tokens - sum(lead), size) if part)


def as_tokens(latents: Tensor) -> Tensor:
    """[B, C, …] → [B, tokens, C]."""
    return latents.flatten(2).transpose(1, 2)
