"""Statistics that tell a photograph from a damaged one: tiles out of place, JPEG blocks, blur, noise, a plain field.

All are measured at native resolution, because scaling hides blocks and seams: meant for evaluation, not for a pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from curation.scorers.pixels import color_entropy, sharpness
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item

_BLOCK = 8  # pixels: JPEG's transform block
_PART = 256  # pixels: of larger pictures, blocks are read in a part of this side, and seams on so many lines
_GRIDS = range(2, 9)  # tiles along a side whose seams are looked for
_CLEAR = 2  # levels by which a step exceeds its neighbours to stand out
_SHIFTS = ((4, 4), (3, 5), (5, 2))  # offsets at which no block of the picture's own compression lies
_LOW = 3  # cosine frequencies up to here say little about compression
_SILENT = 1.5  # levels: a frequency below it is silent, as quantisation leaves most


class Photo:
    """Statistics of a photograph, upright and at native resolution."""

    name = "photo"
    version = "1"
    fields = (
        column("contrast", pa.float64(), "standard deviation of luma"),
        column("sharpness", pa.float64(), "variance of the Laplacian of luma"),
        column("entropy", pa.float64(), "bits of the joint RGB histogram, 16 levels each: 0 (blank) to 12 (noise)"),
        column("roughness", pa.float64(), "sharpness over the square of contrast: photographs 0.1 to 4, noise 20; "
                                          "null for a plain field"),
        column("seams", pa.float64(), "standard errors by which the steps along a regular grid of 2 to 8 tiles stand "
                                      "out, in both directions, 0 or more: photographs 0 to 2, shuffled tiles 3 to 20"),
        column("blocks", pa.float64(), "loud frequencies of shifted 8 × 8 blocks over those of the blocks of JPEG: "
                                       "photographs about 1, compressed ones 2 and more"),
    )  # fmt: skip

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the picture cannot be decoded to its end."""
        return per_item(items, _one)


def _one(item: Item) -> dict[str, Any]:
    import cv2

    rgb = np.asarray(item.upright)
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    contrast, edges = float(luma.std()), sharpness(luma)
    return {
        "contrast": contrast,
        "sharpness": edges,
        "entropy": color_entropy(*cv2.split(rgb)),
        "roughness": edges / contrast**2 if contrast else None,
        "seams": seams(luma),
        "blocks": blocks(luma),
    }


def seams(luma: np.ndarray) -> float:
    """How clearly the steps across a regular grid of tiles stand out, uint8 [H, W]: the best of all grids.

    A seam is a line where the step from pixel to pixel exceeds the steps beside it almost everywhere. In standard
    errors over the other lines, in the direction where they stand out less.
    """
    shares = [_stand_out(luma.T), _stand_out(luma)]
    if min(len(s) for s in shares) < 2 * _BLOCK:
        return 0.0
    return max(0.0, *(min(_excess(s, n // k, k) for s, n in zip(shares, luma.shape)) for k in _GRIDS))


def _stand_out(luma: np.ndarray) -> np.ndarray:
    """Share of the rows where the step into column x + 2 exceeds both steps beside it, by x; tall ones in part."""
    steps = np.abs(np.diff(luma[:: -(-len(luma) // _PART)].astype(np.int16), axis=1))
    return (steps[:, 1:-1] > np.maximum(steps[:, :-2], steps[:, 2:]) + _CLEAR).mean(axis=0)


def _excess(shares: np.ndarray, tile: int, count: int) -> float:
    """Standard errors by which the lines between `count` tiles exceed all lines."""
    lines = np.arange(1, count) * tile - 2
    error = shares.std() / len(lines) ** 0.5 + 0.01  # so that a plain picture has no seams
    return float((shares[lines].mean() - shares.mean()) / error)


def blocks(luma: np.ndarray) -> float:
    """Loud frequencies of shifted blocks over those of the aligned ones, uint8 [H, W]; 1 where there is nothing.

    Quantisation silences most frequencies of a block, and only if the block is where the encoder had it.
    """
    if min(luma.shape) < 3 * _BLOCK:
        return 1.0
    top, left = (max(0, n - _PART) // 2 // _BLOCK * _BLOCK for n in luma.shape)
    luma = luma[top : top + _PART, left : left + _PART]
    aligned = _loud(luma)
    shifted = float(np.mean([_loud(luma[y:, x:]) for y, x in _SHIFTS]))
    return (shifted + 0.005) / (aligned + 0.005)


def _loud(luma: np.ndarray) -> float:
    """Share of the higher cosine frequencies of 8 × 8 blocks that are not silent."""
    height, width = (n // _BLOCK for n in luma.shape)
    cells = luma[: height * _BLOCK, : width * _BLOCK].astype(np.float32)
    cells = cells.reshape(height, _BLOCK, width, _BLOCK).swapaxes(1, 2)
    transform, higher = _cosines()
    return float((np.abs(transform @ cells @ transform.T)[..., higher] >= _SILENT).mean())


@lru_cache(maxsize=1)
def _cosines() -> tuple[np.ndarray, np.ndarray]:
    """(orthonormal cosine transform of 8 values, float32 [8, 8]; mask of the frequencies that tell compression)."""
    frequency = np.arange(_BLOCK)[:, None]
    waves = np.cos(np.pi * frequency * (2 * np.arange(_BLOCK) + 1) / (2 * _BLOCK)) * (2 / _BLOCK) ** 0.5
    waves[0] /= 2**0.5
    return waves.astype(np.float32), frequency + frequency.T > _LOW
