"""Statistics of the one shared decode (upright RGB, long side at most `WORKING_SIDE` pixels).

Each is defined at that working resolution and only there: most of them change with scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from flywheel.schema import column
from flywheel.scorer import WORKING_SIDE, Item, per_item

THUMBNAIL = 8  # pixels: side of the colour thumbnail that near-duplicates must agree in
_HASH_SIDE = 32  # pixels: plane whose lowest 8 × 8 cosine frequencies are the perceptual hash
_GRAY_SPREAD = 6  # levels: channels that differ less everywhere are one channel


class Pixels:
    """Cheap statistics of the picture, its perceptual hash and its colour thumbnail."""

    name = "pixels"
    version = f"1-{WORKING_SIDE}"
    fields = (
        column("luma", pa.float64(), "mean lightness, 0 to 255 (ITU-R BT.601)"),
        column("contrast", pa.float64(), "standard deviation of luma"),
        column("saturation", pa.float64(), "mean HSV saturation, 0 to 1"),
        column("sharpness", pa.float64(), "variance of the Laplacian of luma"),
        column("entropy", pa.float64(), "bits of the joint RGB histogram, 16 levels each: 0 (blank) to 12 (noise)"),
        column("spatial_entropy", pa.float64(), "bits of the histogram of horizontal differences, 0 to 9 (noise)"),
        column("grayscale", pa.bool_(), "the three channels are one"),
        column("phash", pa.uint64(), "perceptual hash: signs of 64 cosine frequencies of luma against their median"),
        column("thumbnail", pa.binary(), "RGB, 8 × 8 area averages, 192 bytes"),
    )

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the picture cannot be decoded to its end."""
        return per_item(items, _one)


def _one(item: Item) -> dict[str, Any]:
    import cv2

    rgb = item.pixels
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    mean, deviation = cv2.meanStdDev(luma)
    high, low = rgb.max(axis=2), rgb.min(axis=2)
    spread = high - low
    saturation = np.divide(spread, high, out=np.zeros(high.shape, np.float32), where=high > 0)
    _, laplacian = cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_64F))
    return {
        "luma": float(mean[0, 0]),
        "contrast": float(deviation[0, 0]),
        "saturation": float(saturation.mean()),
        "sharpness": float(laplacian[0, 0] ** 2),
        "entropy": color_entropy(rgb),
        "spatial_entropy": spatial_entropy(rgb, luma),
        "grayscale": bool(spread.max() <= _GRAY_SPREAD),
        "phash": perceptual_hash(luma),
        "thumbnail": cv2.resize(rgb, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).tobytes(),
    }


def color_entropy(rgb: np.ndarray) -> float:
    """Shannon entropy, bits, of the joint histogram of RGB uint8 [H, W, 3] at 16 levels a channel.

    Joint, because channels of pictures agree and those of noise do not: photographs 2.5–8.5, RGB noise over 11.
    """
    levels = (rgb >> 4).astype(np.uint16)
    codes = (levels[..., 0] << 8) | (levels[..., 1] << 4) | levels[..., 2]
    return _entropy(np.bincount(codes.ravel(), minlength=4096))


def spatial_entropy(rgb: np.ndarray, luma: np.ndarray) -> float:
    """Shannon entropy, bits, of |difference| between horizontal neighbours: the greater of luma and of red minus green.

    Noise differs everywhere, in colour even after it was reduced to the working size; pictures do so only at edges.
    """
    if luma.shape[1] < 2:
        return 0.0
    planes = (luma.astype(np.int16), rgb[..., 0].astype(np.int16) - rgb[..., 1])
    return max(_entropy(np.bincount(np.abs(np.diff(plane, axis=1)).ravel())) for plane in planes)


def _entropy(counts: np.ndarray) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(max(0.0, -(share * np.log2(share)).sum()))


def perceptual_hash(luma: np.ndarray) -> int:
    """64-bit pHash of uint8 [H, W]: bit i says whether frequency i of the lowest 8 × 8 exceeds their median."""
    import cv2

    plane = cv2.resize(luma, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(plane)[:8, :8].ravel()
    return int(np.packbits(low > np.median(low)).view(">u8")[0])
