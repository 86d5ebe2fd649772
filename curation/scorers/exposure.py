"""Measure exposure and bars along the edges on the shared decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item

_TAIL = 0.02  # share of the pixels that may be brighter than `lights`, or darker than `shadows`
_LEVEL = 12  # levels: largest range of luma inside a line of a bar
_DEEP = 8  # pixels past a bar at which the picture is compared, beyond encoding artefacts at the boundary
_DIFFERENT = 24  # levels by which a pixel of the picture differs from the bar
_ALONG = 0.5  # least share of a line that differs from the bar; below it, the picture has a plain background


class Exposure:
    """Ends of the brightness range, and the area of bars (letterboxes, frames)."""

    name = "exposure"
    version = "1"
    fields = (
        column("lights", pa.int32(), "luma that 2 % of the pixels exceed, 0 to 255; low in black frames, not at night"),
        column("shadows", pa.int32(), "luma that 98 % of the pixels exceed, 0 to 255; high where all is washed out"),
        column("bars", pa.float64(), "share of the area in plain bars beside a picture that fills the rest, 0 to 1"),
    )

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the picture cannot be decoded to its end."""
        return per_item(items, _one)


def _one(item: Item) -> dict[str, Any]:
    import cv2

    luma = cv2.cvtColor(item.pixels, cv2.COLOR_RGB2GRAY)
    below = np.cumsum(np.bincount(luma.ravel(), minlength=256)) / luma.size
    return {
        "lights": int(np.searchsorted(below, 1 - _TAIL)),
        "shadows": int(np.searchsorted(below, _TAIL)),
        "bars": bars(luma),
    }


def bars(luma: np.ndarray) -> float:
    """Share of uint8 [H, W] in uniform lines along the edges, where the picture behind them clearly differs."""
    top, bottom, left, right = (_bar(view) for view in (luma, luma[::-1], luma.T, luma.T[::-1]))
    height, width = luma.shape
    return 1.0 - max(0, height - top - bottom) * max(0, width - left - right) / luma.size


def _bar(luma: np.ndarray) -> int:
    """Thickness in lines of a bar at the top."""
    ends = np.flatnonzero(np.ptp(luma, axis=1) > _LEVEL)
    thick = int(ends[0]) if len(ends) else 0  # a blank picture is not a bar
    if not thick or thick + _DEEP >= len(luma):
        return 0
    tone = int(np.median(luma[:thick]))
    different = np.abs(luma[thick + _DEEP].astype(np.int16) - tone) > _DIFFERENT
    return thick if different.mean() >= _ALONG else 0
