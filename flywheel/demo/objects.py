"""Detection of flat coloured shapes by classical vision: background from the border, components, colours, outlines.

Works on cards and on blurred, noisy imitations of them. No shape is detected in an image without a plain background,
such as a photograph or noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from curation.scorers.background import MIN_CONTRAST, background_of, to_lab
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item

SIDE = 128  # pixels: working long side, at which every size below is defined
MIN_AREA = 0.008  # share of the image: smaller components are specks
MIN_OVERLAP = 0.80  # intersection over union with the ideal outline: below it the shape is unknown
MAX_CORE_SPREAD = 16.0  # ΔE inside a component without its rim: above it the component is not flat
_GRID = 48  # pixels: side of the grid on which outlines are compared

# Several anchors (sRGB) per name, because a name is a region of colour, not a point.
_NAMED = {
    "red": [(214, 40, 40), (240, 20, 20), (170, 20, 25), (225, 70, 70)],
    "orange": [(244, 132, 20), (255, 165, 0), (230, 110, 30), (245, 150, 80)],
    "yellow": [(250, 220, 40), (255, 240, 120), (253, 236, 150), (225, 195, 40)],
    "green": [(38, 150, 70), (0, 128, 0), (60, 180, 75), (20, 100, 45), (120, 190, 110)],
    "blue": [(32, 92, 200), (0, 0, 255), (70, 130, 220), (20, 50, 130), (30, 110, 180)],
    "light blue": [(204, 230, 250), (170, 210, 245), (135, 206, 235)],
    "purple": [(130, 52, 160), (128, 0, 128), (155, 80, 190), (95, 40, 130)],
    "pink": [(252, 214, 222), (255, 182, 193), (245, 150, 180)],
    "brown": [(120, 72, 40), (150, 95, 55), (90, 55, 30)],
    "black": [(28, 28, 32), (0, 0, 0), (50, 50, 52)],
    "gray": [(128, 128, 128), (90, 90, 92), (170, 170, 170), (205, 205, 205)],
    "white": [(250, 250, 248), (255, 255, 255), (235, 235, 235)],
}
SHAPES = ("circle", "square", "triangle", "star")
OTHER = "other"


@dataclass(frozen=True)
class Component:
    """A connected mark: shape (or `other`), colour name, centre and area as shares of the image."""

    shape: str
    color: str
    x: float
    y: float
    area: float


class Objects:
    """Scorer of flat shapes on a plain background: shape, colour and place of each."""

    name = "objects"
    version = "1"
    fields = (
        column(
            "objects",
            pa.list_(
                pa.struct(
                    [
                        pa.field("shape", pa.string()),
                        pa.field("color", pa.string()),
                        pa.field("x", pa.float64()),
                        pa.field("y", pa.float64()),
                        pa.field("area", pa.float64()),
                    ]
                )
            ),
            "components, largest first: shape (circle | square | triangle | star | other), colour name, "
            "centre as a share of width and height, area as a share of the picture",
        ),
        column("count", pa.int32(), "components of a known shape"),
        column("background", pa.string(), "colour name of the plain background; null where there is none"),
    )

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item, or `BadImage` if the image cannot be decoded."""
        return per_item(items, _columns)


def _columns(item: Item) -> dict[str, Any]:
    background, objects = detect(item.pixels)
    return {
        "objects": [vars(o) for o in objects],
        "count": sum(o.shape != OTHER for o in objects),
        "background": background,
    }


def detect(pixels: np.ndarray) -> tuple[str | None, list[Component]]:
    """Background colour name and components, largest first, of RGB uint8 [H, W, 3]; (None, []) without a background."""
    lab = working_lab(pixels)
    ground = background_of(lab)
    if ground is None:
        return None, []
    contrast = np.linalg.norm(lab - ground, axis=2)
    described = [_describe(lab, contrast, region) for region in components(contrast)]
    return color_name(ground), sorted(described, key=lambda c: (-c.area, c.x, c.y))


def working_lab(pixels: np.ndarray) -> np.ndarray:
    """CIE Lab float32 [h, w, 3] at the working size, speckle removed."""
    import cv2

    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return to_lab(cv2.medianBlur(small, 5))


def components(contrast: np.ndarray) -> list[np.ndarray]:
    """Masks bool [h, w] of the connected marks that stand out, each cut off at half of its own contrast."""
    import cv2

    marks = (contrast > MIN_CONTRAST).astype(np.uint8)
    number, labels = cv2.connectedComponents(marks, connectivity=4)
    out: list[np.ndarray] = []
    for label in range(1, number):
        mark = labels == label
        # Blur widens a mark by a rim of mixed colours; the edge was where half of the inner contrast is.
        level = 0.5 * float(np.percentile(contrast[mark], 80))
        core = (mark & (contrast > max(level, MIN_CONTRAST))).astype(np.uint8)
        parts, inner = cv2.connectedComponents(core, connectivity=4)
        out += [m for p in range(1, parts) if (m := inner == p).mean() >= MIN_AREA]
    return out


def _describe(lab: np.ndarray, contrast: np.ndarray, region: np.ndarray) -> Component:
    import cv2

    core = cv2.erode(region.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=3).astype(bool)
    if core.sum() < 16:
        core = region
    color = np.median(lab[core], axis=0)
    flat = np.percentile(np.linalg.norm(lab[core] - color, axis=1), 75) <= MAX_CORE_SPREAD
    ys, xs = np.nonzero(region)
    h, w = region.shape
    return Component(
        shape=shape_of(region) if flat else OTHER,
        color=color_name(color),
        x=round(float(xs.mean() + 0.5) / w, 4),
        y=round(float(ys.mean() + 0.5) / h, 4),
        area=round(float(region.mean()), 5),
    )


def shape_of(region: np.ndarray) -> str:
    """Name of the outline that a mask bool [h, w] overlaps best, or `other`."""
    import cv2

    ys, xs = np.nonzero(region)
    top, bottom, left, right = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    height, width = bottom - top, right - left
    if min(height, width) < 6 or not 0.66 <= width / height <= 1.5:
        return OTHER
    crop = region[top:bottom, left:right].astype(np.float32)
    mask = cv2.resize(crop, (_GRID, _GRID), interpolation=cv2.INTER_LINEAR) > 0.5
    overlap, best = max((iou(mask, outline), name) for name, outline in outlines())
    return best if overlap >= MIN_OVERLAP else OTHER


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks of equal size."""
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else 0.0


@lru_cache(maxsize=1)
def outlines() -> tuple[tuple[str, np.ndarray], ...]:
    """(name, mask bool [_GRID, _GRID]) of the ideal shapes, each filling its bounding box."""
    y, x = (np.mgrid[0:_GRID, 0:_GRID] + 0.5) / _GRID
    tri = np.abs(x - 0.5) <= y / 2
    circle = (x - 0.5) ** 2 + (y - 0.5) ** 2 <= 0.25
    stars = [("star", _star(waist)) for waist in (0.42, 0.52, 0.62)]  # blur fills the notches of a star
    triangles = [("triangle", tri), ("triangle", _blunt(tri, 3.0)), ("triangle", _blunt(tri, 6.0))]
    return (("circle", circle), ("square", np.ones_like(circle)), *triangles, *stars)


def _blunt(outline: np.ndarray, sigma: float) -> np.ndarray:
    """The outline after a blur of `sigma` pixels, filling its bounding box again."""
    import cv2

    soft = cv2.GaussianBlur(np.pad(outline.astype(np.float32), _GRID // 2), (0, 0), sigma) > 0.5
    ys, xs = np.nonzero(soft)
    crop = soft[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].astype(np.float32)
    return cv2.resize(crop, (_GRID, _GRID), interpolation=cv2.INTER_LINEAR) > 0.5


def _star(waist: float) -> np.ndarray:
    import cv2

    angles = np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.0, waist)
    points = np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)
    low, high = points.min(axis=0), points.max(axis=0)
    polygon = np.round((points - low) / (high - low) * (_GRID - 1)).astype(np.int32)
    mask = np.zeros((_GRID, _GRID), np.uint8)
    cv2.fillPoly(mask, [polygon], (1,))
    return mask.astype(bool)


@lru_cache(maxsize=1)
def _anchors() -> tuple[tuple[str, ...], np.ndarray]:
    names = tuple(name for name, anchors in _NAMED.items() for _ in anchors)
    rgb = np.array([[a for anchors in _NAMED.values() for a in anchors]], dtype=np.float32)
    return names, to_lab(rgb)[0]


def color_name(lab: np.ndarray) -> str:
    """Everyday name of a Lab colour: the name of the nearest anchor."""
    names, anchors = _anchors()
    return names[int(np.argmin(np.linalg.norm(anchors - lab, axis=1)))]
