"""A synthetic training sample with its entry checks, and the recipe that makes it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from flywheel.core.scorer import Item


class Unsuitable(ValueError):
    """The picture cannot be used for this sample; the message says why."""


@dataclass(frozen=True)
class Sample:
    """A synthetic sample: encoded PNGs, its caption (for ti2i the instruction) and its entry checks.

    `kind`: kind of the caption. `mask`: gray PNG, white where the edit may have changed the picture; None: anywhere.
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
        """SHA-256 of the image bytes; for ti2i of the image, the references and the instruction."""
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
    """A family of samples: its variants, their meanings, and a function that renders a variant.

    `meanings` returns the meaning of the caption and of every picture involved; `render` is a pure function.
    """

    name: str
    variants: Sequence[Any]
    meanings: Callable[[Any], tuple[Hashable | None, ...]]
    render: Callable[[Any, random.Random], Sample]
