"""Meaning of a prompt regardless of its wording, so that a reworded evaluation prompt never enters training.

Packages define meanings through the entry point group `flywheel.meanings`: functions of a prompt that return a hashable
value, equal for prompts that ask for the same picture, or None for prompts they do not know.
"""

from __future__ import annotations

from collections.abc import Hashable

from flywheel.core.plugins import plugins


def meaning(prompt: str) -> Hashable | None:
    """Meaning of a prompt from the first package that knows it; None if none does."""
    return next((m for of in plugins("flywheel.meanings").values() if (m := of(prompt)) is not None), None)
