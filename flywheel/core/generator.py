"""What draws pictures, whatever it is: a checkpoint, a pipeline, an endpoint, a folder; the protocol of generators."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flywheel.core.errors import UsageError

Pixels: TypeAlias = NDArray[np.uint8]  # [H, W, 3]
MOST_GUIDANCE = 100  # the least is 0, and 1 is no guidance


@dataclass(frozen=True)
class Undrawn:
    """Why there is no picture. again: asking again later may help, as when a server does not answer."""

    reason: str
    again: bool = False


def png(picture: Pixels) -> bytes:
    """A picture as PNG. Errors: `UsageError` for an array that is not uint8 [H, W, 3]."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise UsageError(
            f"the generator gave an array of {picture.dtype} and shape {picture.shape}: draw must yield uint8 [H, W, 3]"
        )
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


class Generator(Protocol):
    """Draws one picture per prompt. Kinds are in `flywheel.generators`; add one by the entry point of that name."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever a picture could change: a digest of weights, or of address, model and settings."""
        ...

    @property
    def independent(self) -> bool:
        """True if a picture does not depend on the others of its call: then only missing ones are drawn again."""
        ...

    def draw(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        size: tuple[int, int],
        references: Sequence[Sequence[Pixels]] | None = None,
        masks: Sequence[Pixels | None] | None = None,
        negative: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Iterable[Pixels | Undrawn]:
        """Yield a picture per prompt, uint8 [H, W, 3], in order, each as soon as it is drawn.

        seeds: one per prompt; size: (height, width), pixels; references: pictures that an edit starts from; masks:
        uint8 [h, w], 255 where an edit may change the picture; negative: what to avoid; steps, guidance: None: the
        generator's own. A prompt that cannot be drawn costs its own picture: `Undrawn`. Errors: `UsageError` for what
        stops all of them.
        """
        ...
