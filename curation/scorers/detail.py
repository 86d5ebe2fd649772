"""Find enlarged pictures by the detail that the pixels hold, and worn ones by their blocks, at native resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item

_TILE = 256  # pixels: side of the square tiles whose spectrum is computed
_GRID = 4  # tiles are taken from a grid of at most 4 × 4 places …
_TILES = 4  # … and the sharpest are used, because sky and bokeh do not show a picture's scale
_BINS = 64  # frequency bins from 0 to Nyquist
_ENERGY = 0.95  # share of the edge energy inside the bandwidth
_REACH, _STEP = 17, 0.4  # lines around one, and the share of their largest step from which on a line is a new one
_REGULAR = 0.8  # share of such lines that follow each other evenly in a picture whose pixels were repeated
_TONES, _TONE = 32, 1e-3  # least number of grey levels, each of such a share, of a photograph: codes have two
_BLOCK = 8  # pixels: JPEG's transform block
_EDGE = 64  # levels: larger steps are edges of objects, not of blocks
_ONE_AXIS, _EVERYWHERE = 1.15, 0.1  # see `blockiness`
_UNSEEN = 2.0  # levels: steps that no eye sees in smooth dark areas


class Detail:
    """Bandwidth of a picture: low if it was enlarged. Blockiness: high if it was ever saved at a low quality.

    min_edge: pixels; pictures with a shorter short edge are not decoded, and every column is null.
    """

    name = "detail"
    fields = (
        column("bandwidth", pa.float64(), "share of the frequency band that holds 95 % of the edge energy, 0 to 1; "
                                          "enlarging s times leaves at most about 1.3 / s, or 1 / s by "
                                          "repeated pixels; null without any edge"),
        column("native_edge", pa.float64(), "bandwidth × short edge, pixels: short edge that would hold this detail"),
        column("blockiness", pa.float64(), "steps across the strongest 8-pixel grid over the median of the 8, the "
                                           "mean of both axes; 1: no grid"),
    )  # fmt: skip

    def __init__(self, *, min_edge: int = 0) -> None:
        self.min_edge = min_edge
        self.version = f"4-{min_edge}" if min_edge else "4"

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the picture cannot be decoded to its end."""
        return per_item(items, self._one)

    def _one(self, item: Item) -> dict[str, Any]:
        if min(item.header.size) < self.min_edge:
            return {f.name: None for f in self.fields}
        return _measure(item)


def _measure(item: Item) -> dict[str, Any]:
    luma = np.asarray(item.upright.convert("L"))
    share = bandwidth(luma)
    native = None if share is None else share * min(luma.shape)
    return {"bandwidth": share, "native_edge": native, "blockiness": blockiness(luma)}


def bandwidth(luma: np.ndarray) -> float | None:
    """Share of the frequency band, 0 to 1, with 95 % of the edge energy of uint8 [H, W]; None for a flat picture.

    Edge energy is the power spectrum times the squared frequency. It is about constant over frequency for photographs
    at native scale, and vanishes above the original Nyquist frequency in enlarged ones. A frequency counts by the
    greater of its two axes, because enlarging is separable. Repeated pixels have steps of any frequency: of those the
    distance counts.
    """
    import cv2

    side = min(_TILE, *luma.shape)
    if side < 16:
        return None
    places = [np.unique(np.linspace(0, n - side, min(_GRID, -(-n // side))).astype(int)) for n in luma.shape]
    tiles = [luma[y : y + side, x : x + side].astype(np.float32) for y in places[0] for x in places[1]]
    tiles = sorted(tiles, key=lambda t: -float(cv2.meanStdDev(cv2.Laplacian(t, cv2.CV_32F))[1][0, 0]))[:_TILES]
    times = float(np.median([min(_repeated(t), _repeated(t.T)) for t in tiles]))
    window = np.hanning(side).astype(np.float32)
    window = window[:, None] * window[None]
    power = reduce(np.add, [np.abs(np.fft.rfft2((t - t.mean()) * window)) ** 2 for t in tiles])
    frequency = np.maximum(np.abs(np.fft.fftfreq(side))[:, None], np.fft.rfftfreq(side)[None])
    bins = np.minimum((frequency * 2 * _BINS).astype(int), _BINS - 1).ravel()
    level = np.bincount(bins, power.ravel(), _BINS) / np.maximum(np.bincount(bins, minlength=_BINS), 1)
    energy = level * (np.arange(_BINS) + 0.5) ** 2
    energy[:2] = 0  # the lowest frequencies are shading
    total = energy.sum()
    if total < 1e-6:
        return None
    share = float((np.searchsorted(np.cumsum(energy) / total, _ENERGY) + 1) / _BINS)
    return min(share, 1 / times)


def _repeated(tile: np.ndarray) -> float:
    """How often each row of float32 [H, W] is repeated, on average; 1 where rows that are new come unevenly."""
    import cv2

    steps = np.abs(np.diff(tile, axis=0)).mean(axis=1)
    largest = cv2.dilate(steps[:, None], np.ones((_REACH, 1), np.uint8)).ravel()
    distances = np.diff(np.flatnonzero((steps >= _STEP * largest) & (steps > 1)))
    if len(distances) < _BLOCK or np.median(distances) < 2:
        return 1.0
    even = (np.abs(distances - np.median(distances)) <= 1).mean()
    tones = np.bincount(tile.astype(np.uint8).ravel()) >= _TONE * tile.size
    return float(distances.mean()) if even >= _REGULAR and tones.sum() >= _TONES else 1.0


class Grid(NamedTuple):
    """Mean step across the strongest 8-pixel grid over that of the median one; share of its places that step."""

    ratio: float
    everywhere: float


def blockiness(luma: np.ndarray) -> float:
    """Mean step across the strongest of the 8 possible grids over the median of the 8; geometric mean of both axes.

    luma: uint8 [H, W] at native resolution, upright or not. Blocks show along both axes, and step nearly everywhere.
    Frames show along one axis: the mean is at most `_ONE_AXIS` times the lesser. Charts step at few places: of those
    the lesser counts.
    """
    less, more = sorted(grids(luma))
    if min(less.everywhere, more.everywhere) < _EVERYWHERE:
        return less.ratio
    return min(math.sqrt(less.ratio * more.ratio), _ONE_AXIS * less.ratio)


def grids(luma: np.ndarray) -> tuple[Grid, Grid]:
    """The grid between rows, and the one between columns."""
    import cv2

    return _grid(luma), _grid(cv2.transpose(luma))


def _grid(luma: np.ndarray) -> Grid:
    """The grid of the steps between neighbouring rows."""
    import cv2

    if len(luma) <= 4 * _BLOCK:
        return Grid(1.0, 0.0)
    # Capped, because the edge of a frame would count as a grid by itself.
    _, steps = cv2.threshold(cv2.absdiff(luma[1:], luma[:-1]), _EDGE, 0, cv2.THRESH_TRUNC)
    means = [cv2.mean(steps[phase::_BLOCK])[0] for phase in range(_BLOCK)]
    by_phase, strongest = sorted(means), steps[int(np.argmax(means)) :: _BLOCK]
    median = (by_phase[_BLOCK // 2 - 1] + by_phase[_BLOCK // 2]) / 2
    return Grid((by_phase[-1] + _UNSEEN) / (median + _UNSEEN), float((strongest > 1).mean()))
