"""Compare the result of an edit with its reference: kept subject, unchanged area, structure, and size of the change.

All measures use one working size, so that a small result can be compared with a large reference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curation.scorers.background import MIN_CONTRAST, background_of, to_lab
from flywheel.core.image import decode_working
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item

SIDE = 64  # pixels: working side of both pictures
CHANGED = 16.0  # minimum ΔE, after a light blur, that counts as a change
CELL = 8  # pixels of the working side: cell over which a faint change is averaged
MIN_SUBJECT = 0.02  # share of the picture: smaller marks are not a subject
STRUCTURE_CELL = 16  # pixels of the working side: cell for comparing edges …
STRUCTURE_CELLS = 4  # … and number of the 16 cells that are averaged: an edit leaves at least a quarter in place
STRUCTURE_SCALES = (0.5, 0.65, 0.8, 1.0, 1.25, 1.6)  # of the reference's centre, searched in the result
MIN_DETAIL = 9.0  # ΔE spread inside a mark: a subject has inner detail, a flat shape does not


class Similarity:
    """Agreement of a ti2i sample with its references; without references every column is null."""

    name = "similarity"
    version = "5"
    fields = (
        column("identity", pa.float64(), "correlation with the references' subject, 0 to 1; the least of several"),
        column("unchanged", pa.float64(), "SSIM with the first reference outside the changed area, 0 to 1"),
        column("changed_area", pa.float64(), "share of the picture that differs from the first reference, 0 to 1"),
        column("related", pa.float64(), "agreement of edges with a reference, 0 to 1; the greatest of several"),
        column("aspect_change", pa.float64(), "|ln| of aspect over that of the one reference; null with several"),
        column("largest_change", pa.float64(), "mean ΔE of the 8 × 8 cell that differs most; the least of several"),
        column("color_shift", pa.float64(), "median ΔE of all pixels from the one reference; null with several"),
    )

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where a picture cannot be decoded."""
        return per_item(items, _one)


def _one(item: Item) -> dict[str, Any]:
    if not item.references:
        return {field.name: None for field in Similarity.fields}
    result = item.pixels
    references = [decode_working(r) for r in item.references]
    single = len(references) == 1  # of several references, only parts appear in the result
    similar, changed = unchanged(references[0], result)
    differences = [np.linalg.norm(working(r) - working(result), axis=2) for r in references]
    agreeing = [r for reference in references if (r := related(reference, result)) is not None]
    return {
        "identity": min(identity(r, result) for r in references),
        "unchanged": similar,
        "changed_area": changed,
        "related": max(agreeing, default=None),
        "aspect_change": abs(math.log(_aspect(result) / _aspect(references[0]))) if single else None,
        "largest_change": min(map(largest_change, differences)),
        "color_shift": color_shift(differences[0]) if single else None,
    }


def identity(reference: np.ndarray, result: np.ndarray) -> float:
    """Correlation in [0, 1] of the reference's subject with its best match in the result; RGB uint8 [H, W, 3] each."""
    import cv2

    source, target = working(reference), working(result)
    top, bottom, left, right = subject(source)
    match = cv2.matchTemplate(target, source[top:bottom, left:right], cv2.TM_CCOEFF_NORMED)
    return float(np.clip(match[np.isfinite(match)].max(initial=0.0), 0, 1))


def unchanged(reference: np.ndarray, result: np.ndarray) -> tuple[float, float]:
    """(structural similarity outside the changed area, changed share) of two pictures, RGB uint8 [H, W, 3] each."""
    import cv2

    a, b = working(reference), working(result)
    difference = np.linalg.norm(cv2.GaussianBlur(a, (0, 0), 1.0) - cv2.GaussianBlur(b, (0, 0), 1.0), axis=2)
    changed = difference > CHANGED
    # resampling mixes the rim of a change with its surroundings, so it is excluded from the unchanged part
    keep = cv2.dilate(changed.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    similar = float(ssim(a[..., 0], b[..., 0])[keep].mean()) if keep.any() else 0.0
    return float(np.clip(similar, 0, 1)), float(changed.mean())


def largest_change(difference: np.ndarray) -> float:
    """Largest cell mean of a ΔE map [SIDE, SIDE].

    Averaging over cells finds faint changes of tone and ignores single pixels that differ after encoding again.
    """
    cells = difference.reshape(SIDE // CELL, CELL, SIDE // CELL, CELL)
    return float(cells.mean(axis=(1, 3)).max())


def color_shift(difference: np.ndarray) -> float:
    """Median of a ΔE map [SIDE, SIDE]; 0 if an edit leaves more than half of the picture alone.

    It detects a colour shift of the whole picture, which `unchanged` misses because it compares only the lightness of
    unchanged pixels.
    """
    return float(np.median(difference))


def related(reference: np.ndarray, result: np.ndarray) -> float | None:
    """Agreement of the edges of two pictures in [0, 1], RGB uint8 [H, W, 3] each; None for a reference without edges.

    Edges survive recolouring, restyling and most other edits. The value is the maximum of three measures: the cells
    that agree best in place (fine and coarse edges), the best match of the reference's centre anywhere in the result at
    several scales, and `identity`, which survives blur. Nearly all unrelated photographs score below 0.6.
    """
    scores = [identity(reference, result)]
    for fine in (4, 2):
        a, b = edges(reference, fine), edges(result, fine)
        if a.max() < 1e-3:
            return None
        scores.append(_in_place(a, b))
        if fine == 4:
            scores.append(_anywhere(a, b))
    return max(0.0, *scores)


def edges(pixels: np.ndarray, fine: int) -> np.ndarray:
    """Edge density, float32 [SIDE, SIDE], of RGB uint8 [H, W, 3], computed at `fine` × SIDE pixels."""
    import cv2

    size = (SIDE * fine, SIDE * fine)
    luma = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA).astype(np.float32)
    soft = cv2.GaussianBlur(luma, (0, 0), 0.8)
    slope = np.hypot(cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1))
    return cv2.resize(np.sqrt(slope), (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _in_place(a: np.ndarray, b: np.ndarray) -> float:
    """Mean correlation of the `STRUCTURE_CELLS` cells that agree best."""
    cells = [
        plane.reshape(SIDE // STRUCTURE_CELL, STRUCTURE_CELL, SIDE // STRUCTURE_CELL, STRUCTURE_CELL)
        .swapaxes(1, 2)
        .reshape(-1, STRUCTURE_CELL**2)
        for plane in (a, b)
    ]
    x, y = (c - c.mean(axis=1, keepdims=True) for c in cells)
    size = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    correlation = np.divide((x * y).sum(axis=1), size, out=np.zeros_like(size), where=size > 1e-6)
    return float(np.sort(correlation)[-STRUCTURE_CELLS:].mean())


def _anywhere(a: np.ndarray, b: np.ndarray) -> float:
    """Best correlation of the centre of `a` with any place in `b`, over all scales."""
    import cv2

    best = 0.0
    for scale in STRUCTURE_SCALES:
        side = round(SIDE * scale)
        scaled = cv2.resize(a, (side, side), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        part = min(side * 5 // 8, SIDE * 3 // 4)
        first = (side - part) // 2
        middle = scaled[first : first + part, first : first + part]
        if middle.std() > 1e-3:
            match = cv2.matchTemplate(b, middle, cv2.TM_CCOEFF_NORMED)
            best = max(best, float(match[np.isfinite(match)].max(initial=0.0)))
    return best


def _aspect(pixels: np.ndarray) -> float:
    return pixels.shape[1] / pixels.shape[0]


def subject(lab: np.ndarray) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the most detailed mark on a plain background, else of the whole Lab [H, W, 3]."""
    import cv2

    h, w = lab.shape[:2]
    ground = background_of(lab)
    if ground is None:
        return 0, h, 0, w
    marks = (np.linalg.norm(lab - ground, axis=2) > MIN_CONTRAST).astype(np.uint8)
    outlines, _ = cv2.findContours(marks, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    best, detail = None, MIN_DETAIL
    for outline in outlines:
        left, top, width, height = cv2.boundingRect(outline)
        filled = cv2.drawContours(np.zeros_like(marks), [outline], -1, (1,), cv2.FILLED)
        inner = lab[cv2.erode(filled, np.ones((3, 3), np.uint8), iterations=2) > 0]  # without the anti-aliased rim
        if filled.mean() < MIN_SUBJECT or not len(inner):
            continue
        spread = float(np.linalg.norm(inner - np.median(inner, axis=0), axis=1).mean())
        if spread > detail:
            best, detail = (top, top + height, left, left + width), spread
    return best or (0, h, 0, w)


def working(pixels: np.ndarray) -> np.ndarray:
    """CIE Lab float32 [SIDE, SIDE, 3] of RGB uint8 [H, W, 3]; puts pictures of any size on one grid."""
    import cv2

    shrinking = min(pixels.shape[:2]) > SIDE
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)
    return to_lab(small)


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity map [H, W] of two lightness planes in [0, 100] (Wang et al. 2004; Gaussian, σ = 1.5)."""
    import cv2

    def blur(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (0, 0), 1.5)

    c1, c2 = (0.01 * 100) ** 2, (0.03 * 100) ** 2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    cov = blur(a * b) - mean_a * mean_b
    return ((2 * mean_a * mean_b + c1) * (2 * cov + c2)) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
