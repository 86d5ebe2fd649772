"""Generated samples and their recipes; a sample must pass its checks before training uses it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from flywheel.core.scorer import Item


class Unsuitable(ValueError):
    """The picture is not suitable as a starting point; the message says why."""


@dataclass(frozen=True)
class Sample:
    """A generated sample: encoded PNGs, its caption (for ti2i the instruction) and its entry checks.

    `kind`: of the caption. `mask`: gray PNG, white where an edit may have changed the picture; None: everywhere.
    """

    image: bytes
    caption: str
    task: str
    references: tuple[bytes, ...]
    checks: tuple[dict[str, Any], ...]
    recipe: str
    kind: str = "general"
    mask: bytes | None = None

    @property
    def sample_id(self) -> str:
        """SHA-256 of the image bytes; for ti2i, of image, references and instruction."""
        if self.task == "t2i":
            return hashlib.sha256(self.image).hexdigest()
        parts = [hashlib.sha256(p).hexdigest() for p in (self.image, *self.references, self.caption.encode())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def item(self) -> Item:
        """The sample as scorers see it."""
        return Item(image=self.image, caption=self.caption, task=self.task, references=self.references)


@dataclass(frozen=True)
class Recipe:
    """A family of samples: its variants, the meanings of each, and how a variant becomes a sample.

    `meanings`: those of the caption and of every picture involved. `render` depends on its arguments only.
    """

    name: str
    variants: Sequence[Any]
    meanings: Callable[[Any], tuple[Hashable | None, ...]]
    render: Callable[[Any, random.Random], Sample]
