"""Aspect-ratio buckets: the few picture sizes of about equal area that training batches consist of."""

from __future__ import annotations

import math

import numpy as np

RATIOS = ((1, 3), (1, 2), (9, 16), (2, 3), (3, 4), (1, 1), (4, 3), (3, 2), (16, 9), (2, 1), (3, 1))


def unit(bucket: int) -> int:
    """Sides are multiples of this many pixels: 32, as the model requires, or 8 for the demo's small buckets."""
    return 32 if bucket >= 256 else 8


def layouts(bucket: int) -> tuple[tuple[int, int], ...]:
    """(width, height) of every ratio, about `bucket`² pixels each."""
    step = unit(bucket)
    sides = [(bucket * math.sqrt(w / h), bucket * math.sqrt(h / w)) for w, h in RATIOS]
    return tuple((max(step, round(w / step) * step), max(step, round(h / step) * step)) for w, h in sides)


def layout(width: int, height: int, bucket: int) -> tuple[int, int]:
    """The layout whose aspect ratio is nearest to the picture's, in logarithm."""
    ratio = math.log(width / height)
    return min(layouts(bucket), key=lambda size: (abs(math.log(size[0] / size[1]) - ratio), size))


def layouts_of(widths: np.ndarray, heights: np.ndarray, bucket: int) -> np.ndarray:
    """`layout` of many pictures: int32 [n, 2]."""
    choices = np.array(sorted(layouts(bucket)), np.int32)
    distance = np.abs(np.log(choices[:, 0] / choices[:, 1])[None] - np.log(widths / heights)[:, None])
    return choices[distance.argmin(1)]
