"""A generator that draws the grey level of a prompt's seed, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from flywheel.core.generator import Pixels, Undrawn


class PlainGenerator:
    """Refuses prompts that contain `refused`."""

    fingerprint = "plain"

    def __init__(self, *, independent: bool = True, refused: str = "forbidden") -> None:
        self.independent, self.refused = independent, refused
        self.asked: list[list[str]] = []

    def draw(self, prompts: Sequence[str], *, seeds: Sequence[int], size: tuple[int, int], **_: object) -> Iterator:
        self.asked.append(list(prompts))
        for prompt, seed in zip(prompts, seeds, strict=True):
            yield Undrawn("it is forbidden") if self.refused in prompt else self.grey(seed, size)

    @staticmethod
    def grey(seed: int, size: tuple[int, int]) -> Pixels:
        return np.full((*size, 3), 40 + seed, np.uint8)
