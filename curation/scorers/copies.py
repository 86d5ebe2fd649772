"""What tells a copy of a picture from another picture: hashes of its landmarks, and a small sketch of it.

Landmarks are corners, found at several scales (ORB: Rublee et al., 2011). Each is hashed in the direction and size in
which it was found, and in the one of its two mirror images that its strongest odd frequency chooses, so that a copy
that is turned, cropped, mirrored or gray has landmarks with about the same hashes. A frame of one colour is cut off
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item

LANDMARKS = 32  # at most so many
_SIDE = 192  # pixels: long side in which landmarks are sought
_PATCH = 16  # pixels: side of the square around a landmark that is hashed
_LEVELS, _STEP, _MARGIN = 6, 1.2, 12  # sizes, ratio of two, pixels along the edges without landmarks
_CORNER = 12  # levels by which a corner differs from its surroundings
_SKETCH = 192  # pixels: long side of the sketch of a picture full of texture; others keep the working size, for text
FLAT = 0.25  # share of flat cells from which on a picture is flat
_CELL = 8  # pixels: side of a cell, and …
_RANGE = 10  # … levels: largest range of luma in a flat one; also in a line of a frame
_FRAME = 0.5  # least share of the picture inside its frame: less is not a framed picture
_QUALITY = 70  # of the sketch's JPEG


class Copies:
    """Landmarks of the picture, and a sketch in which two pictures are compared once their landmarks agree."""

    name = "copies"
    version = "1"
    fields = (
        column("hashes", pa.binary(), "64-bit hashes of at most 32 landmarks, little-endian, strongest first"),
        column("places", pa.binary(), "per landmark x, y, size (shares of the sketch's long side), degrees, mirrored: "
                                      "float16 [landmarks, 5]"),
        column("sketch", pa.binary(), "the picture without its frame, as JPEG of at most 192 pixels a side; 512 where "
                                      "much of it is flat"),
    )  # fmt: skip

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the picture cannot be decoded to its end."""
        return per_item(items, lambda item: _columns(item.pixels))


@dataclass(frozen=True)
class Landmarks:
    """Hashes uint64 [K]; places float32 [K, 4]: x, y, size, radians; mirrored bool [K]."""

    hashes: np.ndarray
    places: np.ndarray
    mirrored: np.ndarray


def _columns(rgb: np.ndarray) -> dict[str, Any]:
    import cv2

    top, bottom, left, right = frame(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
    inside = rgb[top:bottom, left:right]
    luma = cv2.cvtColor(inside, cv2.COLOR_RGB2GRAY)
    small = reduced(luma, _SIDE)
    found = landmarks(small)
    x_y_size = (found.places[:, :3] + np.array([0.5, 0.5, 0])) / max(small.shape)
    rest = np.stack([np.degrees(found.places[:, 3]), found.mirrored], axis=1)
    return {
        "hashes": found.hashes.astype("<u8").tobytes(),
        "places": np.concatenate([x_y_size, rest], axis=1).astype("<f2").tobytes(),
        "sketch": _encoded(inside if flat(luma) >= FLAT else reduced(inside, _SKETCH)),
    }


def _encoded(rgb: np.ndarray) -> bytes:
    import cv2

    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(data)


def frame(luma: np.ndarray) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of uint8 [H, W] without lines of one tone along both of two opposite edges.

    Of all where less than half is left. The margin of a page along one edge is no frame.
    """
    rows, columns = (np.ptp(luma, axis=axis) > _RANGE for axis in (1, 0))
    everything = 0, luma.shape[0], 0, luma.shape[1]
    if not rows.any() or not columns.any():
        return everything
    top, left = int(rows.argmax()), int(columns.argmax())
    bottom, right = len(rows) - int(rows[::-1].argmax()), len(columns) - int(columns[::-1].argmax())
    tones = luma.mean(axis=1), luma.mean(axis=0)
    if top == 0 or bottom == len(rows) or abs(tones[0][0] - tones[0][-1]) > _RANGE:
        top, bottom = everything[:2]
    if left == 0 or right == len(columns) or abs(tones[1][0] - tones[1][-1]) > _RANGE:
        left, right = everything[2:]
    if (bottom - top) * (right - left) < _FRAME * luma.size:
        return everything
    height, width = luma.shape  # a line more where one is cut: it holds a part of the frame
    return top + (top > 0), bottom - (bottom < height), left + (left > 0), right - (right < width)


def reduced(pixels: np.ndarray, side: int) -> np.ndarray:
    """uint8 [H, W, …] with a long side of at most `side` pixels (area average)."""
    import cv2

    scale = side / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    width, height = (max(1, round(n * scale)) for n in (pixels.shape[1], pixels.shape[0]))
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def flat(luma: np.ndarray) -> float:
    """Share of 8 × 8 cells of uint8 [H, W] without any contrast, 0 to 1."""
    import cv2

    square = np.ones((_CELL, _CELL), np.uint8)
    spread = cv2.morphologyEx(luma, cv2.MORPH_GRADIENT, square)[_CELL // 2 :: _CELL, _CELL // 2 :: _CELL]
    return float((spread <= _RANGE).mean()) if spread.size else 0.0


# Landmarks -----------------------------------------------------------------------------------------------------------
def landmarks(luma: np.ndarray) -> Landmarks:
    """The strongest corners of uint8 [H, W], with the hash of what is around each."""
    import cv2

    room = min(luma.shape) > 2 * _MARGIN  # OpenCV fails at less than a pixel of its smallest size
    found = _detector().detect(luma, None) if room else ()
    if not found:
        return Landmarks(np.empty(0, np.uint64), np.empty((0, 4), np.float32), np.empty(0, bool))
    found = sorted(found, key=lambda k: -k.response)[:LANDMARKS]
    places = np.array([(*k.pt, k.size, np.radians(k.angle)) for k in found], np.float32)
    frequencies = _patches(cv2.GaussianBlur(luma, (0, 0), 1), places).reshape(len(places), -1) @ _basis().T
    odd = frequencies[:, _odd()]
    mirrored = odd[np.arange(len(odd)), np.abs(odd).argmax(axis=1)] < 0
    frequencies[:, _odd()] *= np.where(mirrored, -1, 1)[:, None]
    bits = np.ascontiguousarray(np.packbits(frequencies > 0, axis=1))
    return Landmarks(bits.view(">u8").ravel().astype(np.uint64), places, mirrored)


@lru_cache(maxsize=1)
def _detector() -> Any:
    import cv2

    return cv2.ORB.create(
        2 * LANDMARKS, scaleFactor=_STEP, nlevels=_LEVELS, edgeThreshold=_MARGIN, fastThreshold=_CORNER
    )


def _patches(luma: np.ndarray, places: np.ndarray) -> np.ndarray:
    """float32 [K, 16, 16]: the squares of each landmark's size around it, in its direction."""
    import cv2

    grid = (np.arange(_PATCH, dtype=np.float32) + 0.5) / _PATCH - 0.5
    along, across = np.meshgrid(grid, grid)
    cos, sin = (f(places[:, 3]) * places[:, 2] for f in (np.cos, np.sin))
    x = places[:, 0, None, None] + cos[:, None, None] * along - sin[:, None, None] * across
    y = places[:, 1, None, None] + sin[:, None, None] * along + cos[:, None, None] * across
    x, y = (v.reshape(-1, _PATCH).astype(np.float32) for v in (x, y))
    patches = cv2.remap(luma, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return patches.reshape(-1, _PATCH, _PATCH).astype(np.float32)


@lru_cache(maxsize=1)
def _frequencies() -> list[tuple[int, int]]:
    """The 64 lowest cosine frequencies (across, along) but the mean, lowest first."""
    pairs = [(u, v) for u in range(9) for v in range(9) if u or v]
    return sorted(pairs, key=lambda p: (p[0] ** 2 + p[1] ** 2, p))[:64]


@lru_cache(maxsize=1)
def _basis() -> np.ndarray:
    """float32 [64, 256]: each frequency over a patch."""
    place = (2 * np.arange(_PATCH) + 1) * np.pi / (2 * _PATCH)
    waves = [np.outer(np.cos(u * place), np.cos(v * place)).ravel() for u, v in _frequencies()]
    return np.array(waves, np.float32)


@lru_cache(maxsize=1)
def _odd() -> np.ndarray:
    """Places of the frequencies whose sign changes when a patch is mirrored across its direction."""
    return np.array([n for n, (u, _) in enumerate(_frequencies()) if u % 2])
