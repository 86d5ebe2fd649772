"""Structural similarity of two pictures that lie on each other, place by place (Wang et al., 2004)."""

from __future__ import annotations

import numpy as np

_NOISE = 40.0  # square levels: variance of what compression leaves
CONTRAST = 60.0  # square levels: least variance of a place that counts
_QUANTILE = 0.2  # of the places may agree less than two pictures are said to agree


def similarity(a: np.ndarray, b: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(structural similarity without its luminance term, variances of both) around each place; float32 [H, W] each.

    a, b: luma, float32 [H, W]. window: pixels, side of the square that is compared at each place.
    """
    import cv2

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (window, window))

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    return (2 * cov + _NOISE) / (va + vb + _NOISE), va, vb


def levelled(other: np.ndarray, luma: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The other picture, float32 [H, W], with the mean and the deviation of this one where both are there."""
    import cv2

    mask = there.view(np.uint8)
    (mean, deviation), (level, spread) = (np.ravel(cv2.meanStdDev(picture, mask=mask)) for picture in (luma, other))
    return (other - np.float32(level)) * np.float32((deviation + 1) / (spread + 1)) + np.float32(mean)


def reached(found: np.ndarray) -> float:
    """The similarity, of float32 [N], that all but a fifth of the places reach."""
    place = int(_QUANTILE * (len(found) - 1))
    return float(np.partition(found, place)[place])


def inside(there: np.ndarray, window: int) -> np.ndarray:
    """Places, bool [H, W], whose whole square is there."""
    import cv2

    square = np.ones((window, window), np.uint8)
    return cv2.erode(there.view(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)) > 0
