"""Meaning of a prompt regardless of wording, so that no evaluation prompt enters training in other words.

Packages provide it for their pictures by entry points of the group `flywheel.meanings`: functions of a prompt that
return a hashable value, equal for prompts that ask for the same, or None if unknown.
"""

from __future__ import annotations

from collections.abc import Hashable

from flywheel.core.plugins import plugins


def meaning(prompt: str) -> Hashable | None:
    """Meaning of a prompt, from the first package that knows it; None if none does."""
    return next((m for of in plugins("flywheel.meanings").values() if (m := of(prompt)) is not None), None)
