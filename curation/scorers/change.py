"""Measure what an edit changed and what it kept, against its first reference: tone, contrast, detail, layout.

Pictures are compared at one size, so that the measures do not depend on their resolutions. Each measure is a difference
or a log ratio: 0 where the edit left that quality alone, and of opposite sign for an edit and its inverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curation.scorers.background import to_lab
from curation.scorers.detail import grids
from flywheel.core.image import decode_working
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item

SIDE = 256  # pixels: longest side at which two pictures are compared
LAYOUT = 32  # pixels: side of the grid on which layouts are compared
FINE, COARSE = 1.0, 4.0  # pixels: σ of the blurs whose differences are the fine and the middle band
FLOOR = 0.25  # levels of L*: a band with less is empty; keeps ratios of empty bands at 0
FLAT = 0.6  # levels of L*: neighbours that differ by less are a flat area
CELLS = 4  # cells a side in which the middle band is compared; the quarter that agrees least is averaged


# By how much a quality may differ from the true edit's, or by more if that changed it by more: `AMOUNT` of its change.
# Found on photographs so that a softer picture, encoded again, still passes, and a blurred or compressed one does not.
ROOM = {
    "lightness": 4.0,
    "red_green": 3.0,
    "yellow_blue": 3.0,
    "chroma": 4.0,
    "contrast": 0.35,
    "detail": 1.3,
    "texture": 0.5,
    "flat": 0.25,
    "blocks": 0.4,
}
AMOUNT = 0.6
LEAST_STRENGTH = 0.5  # rooms that the strongest change must measure; a fainter edit is none
SHRUNK = 0.8  # rooms shrink to so much of the strength of an edit that is fainter than they are
LESS_ALIKE = {"layout": 0.1, "fine_likeness": 0.4, "likeness": 0.15, "least_likeness": 0.25}  # than by the true edit
STRONGEST_BLOCKS = 1.0  # log2: a stronger grid says no more


class Change:
    """What differs between a ti2i sample and its first reference; without references every column is null."""

    name = "change"
    version = "2"
    fields = (
        column("lightness", pa.float64(), "mean L* minus the reference's"),
        column("red_green", pa.float64(), "mean a* minus the reference's: positive is redder"),
        column("yellow_blue", pa.float64(), "mean b* minus the reference's: positive is yellower"),
        column("chroma", pa.float64(), "mean chroma minus the reference's"),
        column("contrast", pa.float64(), "log2 of the spread of L* over the reference's"),
        column("detail", pa.float64(), "log2 of the fine band's spread over the reference's"),
        column("texture", pa.float64(), "log2 of the middle band's spread over the reference's"),
        column("flat", pa.float64(), "share of flat area minus the reference's"),
        column("blocks", pa.float64(), "log2 of the strength of the 8-pixel grid over the reference's"),
        column("layout", pa.float64(), "correlation of lightness with the reference on a grid of 32, −1 to 1"),
        column("fine_likeness", pa.float64(), "correlation of the fine band with the reference's, −1 to 1"),
        column("likeness", pa.float64(), "correlation of the middle band with the reference's, −1 to 1"),
        column("least_likeness", pa.float64(), "the same in the quarter of 16 cells that agrees least"),
    )

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where a picture cannot be decoded."""
        return per_item(items, _one)


def _one(item: Item) -> dict[str, Any]:
    if not item.references:
        return {field.name: None for field in Change.fields}
    return changes(decode_working(item.references[0]), item.pixels)


def changes(reference: np.ndarray, result: np.ndarray) -> dict[str, float]:
    """The columns of `Change` for two pictures, RGB uint8 [H, W, 3]."""
    before, after = _working(reference, result)
    fine_a, middle_a = _bands(before[..., 0])
    fine_b, middle_b = _bands(after[..., 0])
    shift = (after - before).mean(axis=(0, 1))
    cells = [correlation(a, b) for a, b in zip(_cells(middle_a), _cells(middle_b)) if a.std() > FLOOR]
    return {
        "lightness": float(shift[0]),
        "red_green": float(shift[1]),
        "yellow_blue": float(shift[2]),
        "chroma": _chroma(after) - _chroma(before),
        "contrast": _ratio(before[..., 0], after[..., 0]),
        "detail": _ratio(fine_a, fine_b),
        "texture": _ratio(middle_a, middle_b),
        "flat": _flat(after[..., 0]) - _flat(before[..., 0]),
        "blocks": float(np.clip(np.log2(_blocks(result) / _blocks(reference)), -STRONGEST_BLOCKS, STRONGEST_BLOCKS)),
        "layout": correlation(_grid(before[..., 0]), _grid(after[..., 0])),
        "fine_likeness": correlation(fine_a, fine_b),
        "likeness": correlation(middle_a, middle_b),
        "least_likeness": float(np.mean(sorted(cells)[: max(1, len(cells) // 4)])) if cells else 0.0,
    }


def asked(reference: np.ndarray, result: np.ndarray) -> dict[str, list[float]] | None:
    """Range of each measure that an edit must lie in to be the one from `reference` to `result`, RGB uint8 [H, W, 3].

    What the true edit changed must change in its direction and by about its amount; all else must stay, and the
    pictures be nearly as alike. A faint edit leaves less room, so that the picture as it was never passes. None if the
    edit is hardly visible.
    """
    true = changes(reference, result)
    strength = max(abs(true[name]) / room for name, room in ROOM.items())
    if strength < LEAST_STRENGTH:
        return None
    ranges = {}
    for name, most in ROOM.items():
        room = max(most * min(1.0, SHRUNK * strength), AMOUNT * abs(true[name]))
        ranges[name] = [round(true[name] - room, 4), round(true[name] + room, 4)]
    return ranges | {name: [round(true[name] - less, 4), 1.01] for name, less in LESS_ALIKE.items()}


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two planes, −1 to 1; 0 if one of them is constant."""
    x, y = a - a.mean(), b - b.mean()
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / size) if size > 1e-6 else 0.0


def _working(reference: np.ndarray, result: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both pictures in CIE Lab float32, at the size of the smaller one, of at most `SIDE`, in the reference's shape."""
    import cv2

    longest = min(SIDE, max(reference.shape[:2]), max(result.shape[:2]))
    scale = longest / max(reference.shape[:2])
    size = (max(8, round(reference.shape[1] * scale)), max(8, round(reference.shape[0] * scale)))
    before, after = (to_lab(cv2.resize(p, size, interpolation=cv2.INTER_AREA)) for p in (reference, result))
    return before, after


def _bands(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fine and the middle band of a plane [H, W]."""
    import cv2

    fine, coarse = (cv2.GaussianBlur(plane, (0, 0), sigma) for sigma in (FINE, COARSE))
    return plane - fine, fine - coarse


def _chroma(lab: np.ndarray) -> float:
    return float(np.hypot(lab[..., 1], lab[..., 2]).mean())


def _blocks(rgb: np.ndarray) -> float:
    import cv2

    return min(grid.ratio for grid in grids(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)))


def _ratio(before: np.ndarray, after: np.ndarray) -> float:
    return float(np.log2((after.std() + FLOOR) / (before.std() + FLOOR)))


def _flat(plane: np.ndarray) -> float:
    across, down = np.abs(np.diff(plane, axis=1))[:-1], np.abs(np.diff(plane, axis=0))[:, :-1]
    return float(((across < FLAT) & (down < FLAT)).mean())


def _grid(plane: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.resize(plane, (LAYOUT, LAYOUT), interpolation=cv2.INTER_AREA)


def _cells(plane: np.ndarray) -> list[np.ndarray]:
    return [cell for row in np.array_split(plane, CELLS) for cell in np.array_split(row, CELLS, axis=1)]
