"""Detect frontal faces with the Haar cascade shipped in OpenCV: number, size, sharpness."""

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


class Face:
    """Frontal faces in the working decode."""

    name = "face"
    version = "1"
    fields = (
        column("count", pa.int32(), "frontal faces"),
        column("largest", pa.float64(), "side of the largest over the picture's short side, 0 to 1; null without one"),
        column("sharpness", pa.float64(), "variance of the Laplacian of the largest at 96 pixels; null without one"),
    )

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
        return {"count": 0, "largest": None, "sharpness": None}
    x, y, side, _ = max(boxes.tolist(), key=lambda box: (box[2], box))
    crop = cv2.resize(luma[y : y + side, x : x + side], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(crop, cv2.CV_64F))
    return {"count": len(boxes), "largest": side / min(luma.shape), "sharpness": float(deviation[0, 0] ** 2)}


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
