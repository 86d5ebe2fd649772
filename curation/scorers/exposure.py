"""Measure whether light was there, whether too much was, and bars along the edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curation.scorers.structure import soft
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item

_WHITE = 250  # level from which a channel counts as clipped
_INK = 100  # level below which something is dark: over-exposure leaves no such pixel
_PALEST = 178  # level above which what is left is too pale to be ink
_TRACE = 0.0003  # share of the pixels that may be darker without being ink
_TONE = 17  # levels: width of one tone; marks drawn in one colour fall in it, remains of a photograph do not
_CORE = 5  # pixels: side of the square whose darkest level stands for the core of a stroke
_OWN = 0.5  # share of the marks that is of one tone where they are thin …
_LARGE = 4.0  # … and by how much more of it larger marks need, per share of the area
_ONE_INK = 0.006  # share of the missing light off one colour: pencils of any colour less, burnt photographs more
_THIN, _LINES = 7, 0.9  # pixels: white is so near to such a share of the marks where they are lines
_PLAIN, _PATCHES, _AREA = 8, 0.73, 0.02  # levels, share of the cores without more contrast, of the picture in cores
_SHADED = 0.15  # least share of the picture in marks of a sketch; less may be what is left of a photograph
_LEVEL = 12  # levels: largest range of luma inside a line of a bar
_DEEP = 8  # pixels past a bar at which the picture is compared, beyond encoding artefacts at the boundary
_DIFFERENT = 24  # levels by which a pixel of the picture differs from the bar
_ALONG = 0.5  # least share of a line that differs from the bar; below it, the picture has a plain background


class Exposure:
    """Brightest light, the area that over-exposure burnt, and the area of bars (letterboxes, frames)."""

    name = "exposure"
    version = "3"
    fields = (
        column("peak", pa.int32(), "brightest level of any channel, 0 to 255; low in black frames, not at night"),
        column(
            "burnt",
            pa.float64(),
            "share of the area that is clipped to white where nothing dark is left, 0 to 1; "
            "0 for marks of one tone, lines of one ink and flat patches on white",
        ),
        column("bars", pa.float64(), "share of the area in plain bars beside a picture that fills the rest, 0 to 1"),
    )

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the picture cannot be decoded to its end."""
        return per_item(items, _one)


def _one(item: Item) -> dict[str, Any]:
    import cv2

    return {
        "peak": int(soft(item.pixels).max()),
        "burnt": burnt(item),
        "bars": bars(cv2.cvtColor(item.pixels, cv2.COLOR_RGB2GRAY)),
    }


def burnt(item: Item) -> float:
    """Share of clipped pixels, 0 to 1; 0 where the picture holds anything dark, or drawn marks.

    Thin lines fade in the working decode: a picture that looks burnt there is judged at native resolution.
    """
    darkest, clipped = _ends(_lowest(item.pixels))
    if darkest < _INK or not clipped:
        return 0.0
    rgb = np.asarray(item.upright)
    levels = _lowest(rgb)
    darkest, clipped = _ends(levels)
    if darkest >= _PALEST:
        return clipped
    drawn = darkest < _INK or _drawn(levels, 1 - clipped) or _sketched(rgb, levels) or _patched(rgb, levels)
    return 0.0 if drawn else clipped


def _lowest(pixels: np.ndarray) -> np.ndarray:
    """The lowest channel of uint8 [H, W, 3]: uint8 [H, W]."""
    import cv2

    red, green, blue = cv2.split(pixels)
    return cv2.min(cv2.min(red, green), blue)


def _ends(levels: np.ndarray) -> tuple[int, float]:
    """(darkest level but for a trace, share of clipped pixels) of the lowest channel, uint8 [H, W]."""
    import cv2

    counts = cv2.calcHist([levels], [0], None, [256], [0, 256]).ravel().astype(np.float64)
    below = np.cumsum(counts) / levels.size
    return int(np.searchsorted(below, _TRACE, "right")), float(1 - below[_WHITE - 1])


def _drawn(levels: np.ndarray, area: float) -> bool:
    """Whether the marks, which cover this share of the area, are mostly of one tone in the core of their strokes."""
    import cv2

    marks = np.bincount(cv2.erode(levels, np.ones((_CORE, _CORE), np.uint8)).ravel(), minlength=256)[:_WHITE]
    return float(np.convolve(marks, np.ones(_TONE, int)).max()) >= (_OWN + _LARGE * area) * int(marks.sum())


def _sketched(rgb: np.ndarray, levels: np.ndarray) -> bool:
    """Whether the marks are lines of one ink, of any colour and strength: what burns in a photograph keeps several."""
    import cv2

    marks = levels < _WHITE
    if marks.mean() < _SHADED:
        return False
    near = cv2.dilate((~marks).astype(np.uint8), np.ones((2 * _THIN + 1, 2 * _THIN + 1), np.uint8)) > 0
    if near[marks].mean() < _LINES:
        return False
    missing = 255 - rgb[marks].astype(np.float64)
    moments = np.linalg.eigvalsh(missing.T @ missing)
    return bool(1 - moments[-1] / moments.sum() < _ONE_INK)


def _patched(rgb: np.ndarray, levels: np.ndarray) -> bool:
    """Whether the marks are flat patches, as of charts, in however many colours: of a photograph, texture is left."""
    import cv2

    square = np.ones((_CORE, _CORE), np.uint8)
    cores = cv2.erode((levels < _WHITE).astype(np.uint8), square) > 0
    if cores.mean() < _AREA:
        return False
    plain = cv2.morphologyEx(rgb, cv2.MORPH_GRADIENT, square).max(axis=2) <= _PLAIN
    return float(plain[cores].mean()) >= _PATCHES


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
