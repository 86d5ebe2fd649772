"""Tell pictures with little in them from frames with nothing in them: by edges, and by noise that averages out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curation.scorers.pixels import texture
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item

_SOFT = 1.0  # pixels: deviation of the blur that takes grain away, and leaves lines a pixel wide
_AVERAGED = 8  # pixels: side of the squares over which noise averages out
_EVERYWHERE = 0.9  # share of the cells with texture from which a picture may be noise: drawings leave ground free


class Structure:
    """Edges, and how much of the variation is more than noise, in the working decode."""

    name = "structure"
    version = "1"
    fields = (
        column("edges", pa.int32(), "step across the strongest edge of any channel, 0 to 255; blank sheets 6 and less"),
        column("coherence", pa.float64(), "share of luma's variance left in averages of 8 × 8 pixels: noise 0.1 and "
                                          "less; null where texture does not fill the picture, which is no noise"),
    )  # fmt: skip

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the picture cannot be decoded to its end."""
        return per_item(items, lambda item: {"edges": edges(item.pixels), "coherence": coherence(item.pixels)})


def soft(rgb: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] blurred by a pixel."""
    import cv2

    return cv2.GaussianBlur(rgb, (0, 0), _SOFT)


def edges(rgb: np.ndarray) -> int:
    """Largest difference inside 3 × 3 pixels of any channel of uint8 [H, W, 3], after a light blur."""
    import cv2

    return int(cv2.morphologyEx(soft(rgb), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).max())


def coherence(rgb: np.ndarray) -> float | None:
    """Variance of luma's averages over 8 × 8 pixels, over that of luma; None where less than all is textured.

    White noise keeps 1/64 of its variance, grains of three pixels a tenth, photographs more than half.
    """
    import cv2

    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    height, width = (n // _AVERAGED for n in luma.shape)
    if not height or not width or texture(luma) < _EVERYWHERE:
        return None
    luma = luma[: height * _AVERAGED, : width * _AVERAGED]
    means = cv2.resize(luma, (width, height), interpolation=cv2.INTER_AREA)
    return float(means.var() / luma.var())
