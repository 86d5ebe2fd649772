"""Detect frontal faces with the Haar cascade shipped in OpenCV: number, size, sharpness, damage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.scorers import Unavailable
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item

_WEIGHTS = "haarcascade_frontalface_default.xml"
_STEP, _VOTES = 1.1, 8  # pyramid step; overlapping detections needed for a face: fewer would find faces in foliage
_SMALLEST = 0.06  # of the short side; at least 24 pixels, the size the cascade was trained on
_SIDE = 96  # pixels: faces are resized to this side before sharpness is measured
_CELL = 6  # pixels: cell of the noise estimate
_CALM = 0.1  # quantile of the cells by noise: the calmest are skin and background, the others hair and cloth
_BLOCK = 8  # pixels: JPEG's transform block
_EDGE = 64  # levels: larger steps are edges of objects, not of blocks


class Face:
    """Frontal faces in the working decode."""

    name = "face"
    version = "2"
    fields = (
        column("count", pa.int32(), "frontal faces"),
        column("largest", pa.float64(), "side of the largest over the picture's short side, 0 to 1; null without one"),
        column("sharpness", pa.float64(), "variance of the Laplacian of the largest at 96 pixels; null without one"),
        column("detail", pa.float64(), "the same after a blur of 1 pixel, which hides noise; null without one"),
        column("noise", pa.float64(), "levels of noise in the calmest tenth of the largest; null without one"),
        column("flat", pa.float64(), "share of equal neighbours in the largest, 0 to 1: many in a posterised one; null "
                                     "without one"),
        column("blockiness", pa.float64(), "steps across the strongest 8-pixel grid of the largest over the others; 1: "
                                           "no grid; null without one"),
    )  # fmt: skip

    def __init__(self) -> None:
        if not (weights := _weights()).is_file():
            raise Unavailable(f"this OpenCV has no face cascade ({weights}): install opencv-contrib-python 4")

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the picture cannot be decoded to its end."""
        return per_item(items, _one)


def _one(item: Item) -> dict[str, Any]:
    import cv2

    luma = cv2.cvtColor(item.pixels, cv2.COLOR_RGB2GRAY)
    boxes = faces(luma)
    if not len(boxes):
        return dict.fromkeys((f.name for f in Face.fields), None) | {"count": 0}
    x, y, side, _ = max(boxes.tolist(), key=lambda box: (box[2], box))
    face = luma[y : y + side, x : x + side]
    green = item.pixels[y : y + side, x : x + side, 1].astype(np.int16)
    return {
        "count": len(boxes),
        "largest": side / min(luma.shape),
        "sharpness": _sharpness(face),
        "detail": _sharpness(cv2.GaussianBlur(face, (0, 0), 1.0)),
        "noise": _noise(face),
        "flat": float((np.diff(green, axis=1) == 0).mean()),
        "blockiness": max(_grid(face), _grid(face.T)),
    }


def _sharpness(face: np.ndarray) -> float:
    import cv2

    resized = cv2.resize(face, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(resized, cv2.CV_64F))
    return float(deviation[0, 0] ** 2)


def _noise(face: np.ndarray) -> float:
    """Deviation of white noise, in levels, from the diagonal differences of the calmest cells."""
    f = face.astype(np.float64)
    diagonal = (f[:-1, :-1] - f[1:, :-1] - f[:-1, 1:] + f[1:, 1:]) / 2
    rows, columns = (n // _CELL for n in diagonal.shape)
    cells = diagonal[: rows * _CELL, : columns * _CELL].reshape(rows, _CELL, columns, _CELL)
    return float(np.quantile(np.sqrt((cells**2).mean((1, 3))), _CALM))


def _grid(face: np.ndarray) -> float:
    """Mean step between columns at the strongest of the 8 grid phases over the median phase, at least 1."""
    steps = np.minimum(np.abs(np.diff(face.astype(np.float64), axis=1)), _EDGE).mean(0)
    phases = steps[: len(steps) // _BLOCK * _BLOCK].reshape(-1, _BLOCK).mean(0)
    return max(1.0, float(phases.max() / max(np.median(phases), 1e-6)))


def faces(luma: np.ndarray) -> np.ndarray:
    """Squares (x, y, side, side) [N, 4] around frontal faces in uint8 [H, W]."""
    import cv2

    smallest = max(24, round(_SMALLEST * min(luma.shape)))
    boxes = _cascade().detectMultiScale(cv2.equalizeHist(luma), _STEP, _VOTES, minSize=(smallest, smallest))
    return np.asarray(boxes, np.int64).reshape(-1, 4)


def _weights() -> Path:
    import cv2

    return Path(cv2.__file__).parent / "data" / _WEIGHTS


@lru_cache(maxsize=1)
def _cascade() -> Any:
    import cv2

    return cv2.CascadeClassifier(str(_weights()))
