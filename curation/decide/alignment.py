"""Lay one picture on another to a pixel: by features, then by small steps.

Where several landmarks agree, SIFT features (Lowe, 2004) of both sketches, matched and fitted by RANSAC (MAGSAC++:
Barath et al., 2020), say how two pictures lie on each other, as the comparison needs of turned and cropped copies.
Small steps (ECC: Evangelidis and Psarakis, 2008) are for pictures with few features, such as slides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from curation.decide.glimpse import Glimpse, Proposal
from curation.scorers.copies import reduced

AGREEING = 4  # landmarks that agree, from which finer features are worth their cost: copies 6 and more, others 3
_FEATURES, _FEATURE_SIDE = 200, 256  # at most so many, in a long side of so many pixels
_FEATURE_CONTRAST = 0.02  # least contrast (SIFT's: 0.04)
_RATIO = 0.8  # a feature is matched if the second nearest is so much further (Lowe, 2004)
_MATCHED = 6  # features at least that lie on each other, within …
_PIXELS = 2.0  # … so many pixels
_STEPS, _STEP_SIDE = 25, 160  # small steps, and pixels of the long side that they work on
_CHROMA_WINDOW = 11  # pixels: side of the square over which colours are averaged
_WEDGE, _SAME = 0.06, 4  # largest share of a corner that turning filled with one tone, and its levels


class Features(NamedTuple):
    """places: float64 [K, 2], pixels. descriptors: float32 [K, 128]."""

    places: np.ndarray
    descriptors: np.ndarray


@dataclass(frozen=True)
class Sketch(Glimpse):
    """A picture's sketch, uint8 [H, W, 3], with what a glimpse shows of it.

    larger: the sketch that this one is reduced from, which keeps the features for all pictures it is compared with.
    """

    rgb: np.ndarray
    larger: Sketch | None = None

    @classmethod
    def of(cls, hashes: bytes, places: bytes, sketch: bytes) -> Sketch:
        """A sketch from the columns of the scorer `copies`."""
        import cv2

        image = cv2.imdecode(np.frombuffer(sketch, np.uint8), cv2.IMREAD_COLOR)
        return cls(**vars(Glimpse.of(hashes, places, sketch)), rgb=cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    @cached_property
    def luma(self) -> np.ndarray:
        """uint8 [H, W]."""
        import cv2

        return cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY)

    @cached_property
    def chroma(self) -> np.ndarray:
        """uint8 [H, W, 2]: Cr and Cb, blurred."""
        import cv2

        planes = cv2.split(cv2.cvtColor(self.rgb, cv2.COLOR_RGB2YCrCb))[1:]
        return cv2.blur(cv2.merge(planes), (_CHROMA_WINDOW, _CHROMA_WINDOW))

    @cached_property
    def filled(self) -> np.ndarray:
        """uint8 [H, W]: 255 but for corners that hold nothing, which turning leaves."""
        import cv2

        height, width = self.luma.shape
        out = np.full((height, width), 255, np.uint8)
        for corner in ((0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)):
            mask = np.zeros((height + 2, width + 2), np.uint8)
            flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | 255 << 8
            area, *_ = cv2.floodFill(self.luma, mask, corner, (0,), (_SAME,), (_SAME,), flags)
            if area <= _WEDGE * self.luma.size:
                out[mask[1:-1, 1:-1] == 255] = 0
        return out

    @cached_property
    def features(self) -> Features:
        """Its SIFT features."""
        return self._reduced(self.larger.features) if self.larger else _features(self.luma)

    @cached_property
    def mirrored_features(self) -> Features:
        """Those of its mirror image, at their places in the picture itself."""
        if self.larger:
            return self._reduced(self.larger.mirrored_features)
        found = _features(np.ascontiguousarray(self.luma[:, ::-1]))
        return Features(np.array([self.luma.shape[1] - 1, 0]) + found.places * (-1, 1), found.descriptors)

    def _reduced(self, found: Features) -> Features:
        """Features of the larger sketch at their places in this one."""
        scale = self.side / self.larger.side if self.larger else 1.0
        return Features((found.places + 0.5) * scale - 0.5, found.descriptors)

    def at(self, side: int) -> Sketch:
        """The sketch reduced to this long side."""
        if side >= self.side:
            return self
        rgb = reduced(self.rgb, side)
        return replace(self, height=rgb.shape[0], width=rgb.shape[1], rgb=rgb, larger=self)


def exact(first: Sketch, second: Sketch, proposal: Proposal | None) -> np.ndarray | None:
    """Map of the first picture onto the second by finer features; None where the proposal or they agree too little."""
    import cv2

    if proposal is None or proposal.agreeing < AGREEING:
        return None
    mine, yours = first.features, second.mirrored_features if proposal.mirrors else second.features
    if min(len(mine.places), len(yours.places)) < _MATCHED:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(mine.descriptors, yours.descriptors, 2)
    matched = [a for a, b in pairs if a.distance < _RATIO * b.distance]
    if len(matched) < _MATCHED:
        return None
    a, b = mine.places[[m.queryIdx for m in matched]], yours.places[[m.trainIdx for m in matched]]
    within = _PIXELS * max(1.0, second.side / _FEATURE_SIDE)
    found, good = cv2.estimateAffine2D(a, b, method=cv2.USAC_MAGSAC, ransacReprojThreshold=within)
    return None if found is None or good.sum() < _MATCHED else found


def _features(luma: np.ndarray) -> Features:
    small = reduced(luma, _FEATURE_SIDE)
    found, descriptors = _sift().detectAndCompute(small, None)
    if descriptors is None:
        return Features(np.empty((0, 2)), np.empty((0, 128), np.float32))
    scale = luma.shape[1] / small.shape[1]
    return Features((np.array([k.pt for k in found]) + 0.5) * scale - 0.5, descriptors)


@lru_cache(maxsize=1)
def _sift() -> Any:
    import cv2

    return cv2.SIFT.create(_FEATURES, contrastThreshold=_FEATURE_CONTRAST)


def improved(first: Sketch, second: Sketch, start: np.ndarray) -> np.ndarray | None:
    """The map after a few steps that increase the correlation of the two pictures; None where they diverge."""
    import cv2

    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _STEPS, 1e-4)
    scale = max(1.0, first.side / _STEP_SIDE)
    begin = np.array(start, np.float32, order="C")
    # Pixels are points in the middle of their area: a reduced one lies (scale − 1) / 2 further on.
    centre = (1 - begin[:, :2].sum(axis=1)) * (scale - 1) / 2
    begin[:, 2] = (begin[:, 2] - centre) / scale
    one, two = (reduced(s.luma, _STEP_SIDE) if scale > 1 else s.luma for s in (first, second))
    everywhere = np.full(one.shape, 255, np.uint8)
    try:
        _, found = cv2.findTransformECC(one, two, begin, cv2.MOTION_AFFINE, criteria, everywhere, 5)
    except cv2.error:  # no correlation left: not the same picture
        return None
    centre = (1 - found[:, :2].sum(axis=1)) * (scale - 1) / 2
    found[:, 2] = found[:, 2] * scale + centre
    return found.astype(np.float64)
