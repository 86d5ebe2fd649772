"""Segment the subject of a photograph (GrabCut), and blend an edit into a mask without changing the rest."""

from __future__ import annotations

import numpy as np
from PIL import Image

from curation.synthesis.sample import Unsuitable

_WORKING = 256  # pixels: long side at which the subject is segmented
_SHARE = (0.05, 0.55)  # of the picture: smaller masks are not a subject, larger ones not a foreground
_SOLID = 0.7  # least area of the mask over that of its convex hull: ragged masks are wrong
_BORDER = 0.35  # largest share of the picture's border that a subject touches
_CONTRAST = 12.0  # least ΔE between the rims inside and outside the mask, so that the outline is visible
_FEATHER = 0.006  # of the long side: blur of the mask's edge
MIN_CHANGE = 6.0  # mean ΔE inside the mask: smaller changes are not visible


def subject(photo: Image.Image) -> np.ndarray:
    """Mask of the subject near the centre, bool [H, W]. Errors: `Unsuitable` without a clear subject."""
    import cv2

    small = photo.copy()
    small.thumbnail((_WORKING, _WORKING), Image.Resampling.BOX)
    pixels = np.ascontiguousarray(np.asarray(small)[:, :, ::-1])
    height, width = pixels.shape[:2]
    rect = (round(width * 0.08), round(height * 0.08), round(width * 0.84), round(height * 0.84))
    marks = np.zeros((height, width), np.uint8)
    cv2.setRNGSeed(0)  # GrabCut's clustering uses it
    try:
        cv2.grabCut(pixels, marks, rect, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_RECT)
    except cv2.error as error:
        raise Unsuitable("no subject: the picture has no background") from error
    foreground = ((marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)).astype(np.uint8)
    opened = cv2.morphologyEx(foreground, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    closed = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        raise Unsuitable("no subject")
    outline = max(outlines, key=cv2.contourArea)
    mask = cv2.drawContours(np.zeros_like(closed), [outline], -1, (1,), cv2.FILLED)
    _require_clear(pixels, mask, outline)
    return cv2.resize(mask, photo.size, interpolation=cv2.INTER_LINEAR_EXACT) > 0


def _require_clear(pixels: np.ndarray, mask: np.ndarray, outline: np.ndarray) -> None:
    """Errors: `Unsuitable` if the mask is unlikely to be a subject."""
    import cv2

    share = float(mask.mean())
    if not _SHARE[0] <= share <= _SHARE[1]:
        raise Unsuitable(f"no subject: the mask covers {share:.0%} of the picture")
    solid = cv2.contourArea(outline) / max(1.0, cv2.contourArea(cv2.convexHull(outline)))
    if solid < _SOLID:
        raise Unsuitable(f"no clear subject: its outline is ragged (solidity {solid:.2f})")
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if border.mean() > _BORDER:
        raise Unsuitable("no clear subject: the border of the picture cuts it off")
    lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
    kernel = np.ones((9, 9), np.uint8)
    inside, outside = mask - cv2.erode(mask, kernel), cv2.dilate(mask, kernel) - mask
    contrast = float(np.linalg.norm(lab[inside > 0].mean(axis=0) - lab[outside > 0].mean(axis=0)))
    if contrast < _CONTRAST:
        raise Unsuitable(f"no clear subject: it differs from its surroundings by ΔE {contrast:.0f}")


def blend(before: Image.Image, after: Image.Image, mask: np.ndarray) -> tuple[Image.Image, Image.Image]:
    """(`before` with `after` inside the softened mask, gray mask of the pixels that may differ).

    Outside the returned mask both pictures are equal, pixel by pixel. Errors: `Unsuitable` if nothing visible changes.
    """
    import cv2

    feather = max(1.0, _FEATHER * max(before.size))
    alpha = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), feather)[..., None]
    alpha[alpha < 1 / 255] = 0
    a, b = np.asarray(before, np.float32), np.asarray(after, np.float32)
    mixed = np.where(alpha > 0, a * (1 - alpha) + b * alpha, a).round().astype(np.uint8)
    touched = alpha[..., 0] > 0
    change = difference(np.asarray(before), mixed)[touched]
    if not len(change) or change.mean() < MIN_CHANGE:
        raise Unsuitable("the edit changes nothing visible")
    return Image.fromarray(mixed), Image.fromarray(touched.astype(np.uint8) * 255)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """ΔE (CIE 1976) per pixel, [H, W], of two RGB uint8 pictures [H, W, 3]."""
    import cv2

    x, y = (cv2.cvtColor(p.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for p in (a, b))
    return np.linalg.norm(x - y, axis=2)
