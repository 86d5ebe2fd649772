"""Statistics of the shared decode (upright RGB, long side at most `WORKING_SIDE` pixels).

Statistics are defined at this working resolution only, because most of them change with scale. Colour and histograms
use every other row: half the work for the same answer. Operations use OpenCV, because numpy temporaries would cost
several times the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from flywheel.core.errors import UsageError
from flywheel.core.image import WORKING_SIDE
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item

THUMBNAIL = 8  # pixels: side of the colour thumbnail in which near-duplicates must agree
_HASH_SIDE = 32  # pixels: side of the plane whose lowest 8 × 8 cosine frequencies give the perceptual hash
_HASH_DECODE = 256  # pixels: least decoded long side if only hash and thumbnail are computed
_GRAY_SPREAD = 6  # levels: a picture whose channels never differ by more is grayscale
_CELL = 16  # pixels: cell of the texture statistic
_FLAT = 4.0  # levels: largest deviation of luma in a cell without texture
_FRAME = 10  # levels: largest range of luma in a line of a frame


class Pixels:
    """Cheap statistics of the picture, its perceptual hash and its colour thumbnail.

    only: columns to compute in addition to hash and thumbnail, which deduplication needs; the others are null. Default:
    all. With an empty list, JPEGs are decoded at a smaller size: half the cost, and hashes that differ by a bit or two.
    """

    name = "pixels"
    fields = (
        column("luma", pa.float64(), "mean lightness, 0 to 255 (ITU-R BT.601)"),
        column("contrast", pa.float64(), "standard deviation of luma"),
        column("saturation", pa.float64(), "mean HSV saturation, 0 to 1"),
        column("sharpness", pa.float64(), "variance of the Laplacian of luma"),
        column("entropy", pa.float64(), "bits of the joint RGB histogram, 16 levels each: 0 (blank) to 12 (noise)"),
        column("spatial_entropy", pa.float64(), "bits of the histogram of horizontal differences, 0 to 8 (noise)"),
        column("grayscale", pa.bool_(), "the three channels are one"),
        column("border", pa.float64(), "share of the area in uniform lines along the edges, 0 to 1"),
        column("texture", pa.float64(), "share of 16 × 16 cells with texture, 0 to 1"),
        column("phash", pa.uint64(), "perceptual hash: signs of 64 cosine frequencies of luma against their median"),
        column("thumbnail", pa.binary(), "RGB, 8 × 8 area averages, 192 bytes"),
    )  # fmt: skip

    def __init__(self, *, only: Sequence[str] | None = None) -> None:
        if unknown := set(only or ()) - STATISTICS.keys():
            raise UsageError(
                f"[scorers.pixels] only: unknown {', '.join(sorted(unknown))}; choose from {', '.join(STATISTICS)}"
            )
        names = STATISTICS if only is None else [n for n in STATISTICS if n in {*only, "phash", "thumbnail"}]
        self._wanted = {name: STATISTICS[name] for name in names}
        self._side = WORKING_SIDE if len(names) > 2 else _HASH_DECODE
        self.version = f"4-{self._side}" + ("" if only is None else f"-{'+'.join(names)}")

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the picture cannot be decoded to its end."""
        return per_item(items, self._one)

    def _one(self, item: Item) -> dict[str, Any]:
        planes = _Planes(item, item.pixels if self._side == WORKING_SIDE else item.at_least(self._side))
        return dict.fromkeys(STATISTICS) | {name: statistic(planes) for name, statistic in self._wanted.items()}


class _Planes:
    """Intermediate planes of one picture that several statistics share, each computed once."""

    def __init__(self, item: Item, rgb: np.ndarray) -> None:
        self.item = item
        self.rgb = rgb

    @cached_property
    def luma(self) -> np.ndarray:
        import cv2

        return cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY)

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of luma."""
        import cv2

        mean, deviation = cv2.meanStdDev(self.luma)
        return float(mean[0, 0]), float(deviation[0, 0])

    @cached_property
    def channels(self) -> Sequence[np.ndarray]:
        """Red, green, blue of every other row."""
        import cv2

        return cv2.split(self.rgb[::2])

    @cached_property
    def spread(self) -> tuple[np.ndarray, np.ndarray]:
        """Largest minus smallest channel, and largest channel, of every other row."""
        import cv2

        red, green, blue = self.channels
        high = cv2.max(cv2.max(red, green), blue)
        return cv2.subtract(high, cv2.min(cv2.min(red, green), blue)), high

    @cached_property
    def miniature(self) -> np.ndarray:
        return miniature(self.rgb)


def miniature(rgb: np.ndarray) -> np.ndarray:
    """Area averages of uint8 [H, W, 3] at 32 × 32; large pictures are halved first, which is several times faster."""
    import cv2

    while min(rgb.shape[:2]) >= 4 * _HASH_SIDE:
        height, width = (n // 2 for n in rgb.shape[:2])
        rgb = cv2.resize(rgb[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(rgb, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA)


def saturation(spread: np.ndarray, high: np.ndarray) -> float:
    """Mean of spread / high, uint8 [H, W] each, 0 to 1; black pixels count as 0."""
    import cv2

    return cv2.mean(cv2.divide(spread, high, scale=255))[0] / 255  # x / 0 is 0 in OpenCV's integers


def sharpness(luma: np.ndarray) -> float:
    """Variance of the Laplacian of uint8 [H, W]."""
    import cv2

    edges = cv2.Laplacian(luma, cv2.CV_16S)
    return max(0.0, cv2.norm(edges, cv2.NORM_L2SQR) / edges.size - cv2.mean(edges)[0] ** 2)


def color_entropy(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> float:
    """Shannon entropy, bits, of the joint histogram of uint8 [H, W] planes at 16 levels a channel.

    Joint, because the channels of pictures are correlated and those of noise are not: photographs have 2.5–8.5 bits,
    RGB noise over 11.
    """
    import cv2

    return _entropy(cv2.calcHist([red, green, blue], [0, 1, 2], None, [16] * 3, [0, 256] * 3))


def spatial_entropy(luma: np.ndarray, red: np.ndarray, green: np.ndarray) -> float:
    """Shannon entropy, bits, of |difference| between horizontal neighbours: the larger of luma and of red minus green.

    Noise differs everywhere, in colour even after downscaling to the working size; pictures differ only at edges.
    Differences of 255 and more share a bin.
    """
    import cv2

    if luma.shape[1] < 2:
        return 0.0
    colour = cv2.subtract(red, green, dtype=cv2.CV_16S)
    steps = (
        cv2.absdiff(luma[:, 1:], luma[:, :-1]),
        cv2.convertScaleAbs(cv2.subtract(colour[:, 1:], colour[:, :-1])),
    )
    return max(_entropy(cv2.calcHist([s], [0], None, [256], [0, 256])) for s in steps)


def _entropy(counts: np.ndarray) -> float:
    bins = counts.ravel().astype(np.float64)
    total = bins.sum()
    return max(0.0, float(np.log2(total) - bins @ np.log2(np.maximum(bins, 1)) / total))


def border(luma: np.ndarray) -> float:
    """Share of uint8 [H, W] in uniform lines along its edges (letterboxes, frames); 1 for a blank picture."""
    rows = np.ptp(luma, axis=1) > _FRAME
    columns = np.ptp(luma, axis=0) > _FRAME
    if not rows.any() or not columns.any():
        return 1.0
    height, width = (len(v) - int(v.argmax()) - int(v[::-1].argmax()) for v in (rows, columns))
    return 1.0 - height * width / luma.size


def texture(luma: np.ndarray) -> float:
    """Share of 16 × 16 cells of uint8 [H, W] whose luma deviates more than a flat area with noise."""
    import cv2

    if min(luma.shape) < _CELL:
        return float(luma.std() > _FLAT)
    height, width = (n // _CELL for n in luma.shape)
    sums = cv2.integral2(luma[: height * _CELL, : width * _CELL])
    mean, square = (np.diff(np.diff(s[::_CELL, ::_CELL].astype(np.float64), axis=0), axis=1) / _CELL**2 for s in sums)
    return float((square - mean * mean > _FLAT**2).mean())


def perceptual_hash(rgb: np.ndarray) -> int:
    """64-bit pHash of uint8 [32, 32, 3]: bit i says whether frequency i of the lowest 8 × 8 exceeds their median."""
    import cv2

    low = cv2.dct(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32))[:8, :8].ravel()
    return int(np.packbits(low > np.median(low)).view(">u8")[0])


def thumbnail(rgb: np.ndarray) -> bytes:
    """RGB bytes of the 8 × 8 area averages of uint8 [32, 32, 3]."""
    import cv2

    return cv2.resize(rgb, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).tobytes()


STATISTICS: dict[str, Callable[[_Planes], Any]] = {
    "luma": lambda p: p.moments[0],
    "contrast": lambda p: p.moments[1],
    "saturation": lambda p: saturation(*p.spread),
    "sharpness": lambda p: sharpness(p.luma),
    "entropy": lambda p: color_entropy(*p.channels),
    "spatial_entropy": lambda p: spatial_entropy(p.luma[::2], *p.channels[:2]),
    "grayscale": lambda p: bool(p.spread[0].max() <= _GRAY_SPREAD),
    "border": lambda p: border(p.luma),
    "texture": lambda p: texture(p.luma),
    "phash": lambda p: perceptual_hash(p.miniature),
    "thumbnail": lambda p: thumbnail(p.miniature),
}
