"""What a prompt asks for, wording aside: so that an evaluation prompt never enters training under other words.

Packages say it for the pictures that they make, by entry points of the group `flywheel.meanings`: functions of a prompt
that return a hashable value, equal for prompts that ask for the same, or None where they do not know.
"""

from __future__ import annotations

from collections.abc import Hashable

from flywheel.core.plugins import plugins


def meaning(prompt: str) -> Hashable | None:
    """What a prompt asks for, as the first package that knows says; None where none does."""
    return next((m for of in plugins("flywheel.meanings").values() if (m := of(prompt)) is not None), None)
