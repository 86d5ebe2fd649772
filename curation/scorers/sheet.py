"""Are lines of text that run sideways set on one sheet, or labels of several things: spines, ticks, tabs?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_NEAR = 30  # levels: a pixel so near to the ground's colour is ground
_FLAT = 0.8  # least share of ground in the rim of a line that stands on plain ground
_RIM = 0.35  # width of that rim, as a multiple of the characters' height
_PITCH = 3.0  # gap of two lines on one sheet, as a multiple of that height, at most
_EDGE = 0.5  # share of a line across the gap that is not ground, from which it is the edge of something
_SHEET = 0.4  # least share of the picture that is of the ground's colour: less is a label on something


def on_one_sheet(rgb: np.ndarray, boxes: Sequence[tuple[int, int, int, int]]) -> bool:
    """Whether tall boxes (left, top, right, bottom) of lines in uint8 [H, W, 3] belong together.

    True on ground that is not plain, such as a photograph, where nothing tells. On plain ground the lines have one
    ground, which most of the picture is of, and are close together with no edge between them: at least two of them.
    """
    placed = sorted((*box, _ground(rgb, box)) for box in boxes)
    plain = [(box, ground) for *box, ground in placed if ground is not None]
    if 2 * len(plain) <= len(boxes):
        return True
    joined = [a for a, b in zip(plain, plain[1:]) if _joined(rgb, a, b)]
    if 2 * (len(joined) + 1) <= len(boxes) or not joined:
        return False
    return bool(_is_ground(rgb, np.array(joined[0][1])).mean() >= _SHEET)


def _ground(rgb: np.ndarray, box: tuple[int, int, int, int]) -> tuple[int, ...] | None:
    """Colour of the rim around a box; None where it is not plain."""
    left, top, right, bottom = box
    rim = max(2, round(_RIM * (right - left)))
    outer = rgb[max(0, top - rim) : bottom + rim, max(0, left - rim) : right + rim]
    inside = np.zeros(outer.shape[:2], bool)
    inside[min(top, rim) : min(top, rim) + bottom - top, min(left, rim) : min(left, rim) + right - left] = True
    pixels = outer[~inside]
    if not len(pixels):
        return None
    colour = np.median(pixels, axis=0)
    return tuple(int(v) for v in colour) if _is_ground(pixels, colour).mean() >= _FLAT else None


def _joined(
    rgb: np.ndarray, first: tuple[list[int], tuple[int, ...]], second: tuple[list[int], tuple[int, ...]]
) -> bool:
    """Whether two neighbours, from left to right, are lines of one sheet."""
    (a, mine), (b, yours) = first, second
    if np.abs(np.subtract(mine, yours)).max() > _NEAR:
        return False
    if b[0] - a[2] > _PITCH * max(a[2] - a[0], b[2] - b[0]):
        return False
    top, bottom = max(a[1], b[1]), min(a[3], b[3])
    between = rgb[top:bottom, min(a[2], b[0]) : max(a[2], b[0])]
    other = ~_is_ground(between, np.array(mine))
    return not between.size or bool(other.mean(axis=0).max() < _EDGE)


def _is_ground(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return np.abs(pixels.astype(np.int16) - colour.astype(np.int16)).max(axis=-1) <= _NEAR
