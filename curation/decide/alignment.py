"""Lay one picture on another: by their landmarks, then by finer features, then by small steps.

The few landmarks of the scorer `copies` say cheaply how two pictures may lie on each other. Where several of them
agree, SIFT features (Lowe, 2004) of both sketches, matched and fitted by RANSAC (MAGSAC++: Barath et al., 2020), say it
to a pixel, as the comparison needs of turned and cropped copies. Small steps (ECC: Evangelidis and Psarakis, 2008) are
for pictures with few features, such as slides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from curation.scorers.copies import reduced

_HAMMING = 16  # bits of 64 in which two hashes of one landmark may differ
_NEAR = 0.04  # distance in which a landmark is found again, as a share of the long side
AGREEING = 4  # landmarks that agree, from which finer features are worth their cost: copies 6 and more, others 3
_FEATURES, _FEATURE_SIDE = 200, 256  # at most so many, in a long side of so many pixels
_FEATURE_CONTRAST = 0.02  # least contrast (SIFT's: 0.04)
_RATIO = 0.8  # a feature is matched if the second nearest is so much further (Lowe, 2004)
_MATCHED = 6  # features at least that lie on each other, within …
_PIXELS = 2.0  # … so many pixels
_STEPS, _STEP_SIDE = 25, 160  # small steps, and pixels of the long side that they work on
_CHROMA_WINDOW = 11  # pixels: side of the square over which colours are averaged
_AFAR = 16  # pixels: long side of a picture that is seen from afar
_WEDGE, _SAME = 0.06, 4  # largest share of a corner that turning filled with one tone, and its levels


class Features(NamedTuple):
    """places: float64 [K, 2], pixels. descriptors: float32 [K, 128]."""

    places: np.ndarray
    descriptors: np.ndarray


class Proposal(NamedTuple):
    """Map of one picture onto another, float64 [2, 3], pixels; landmarks that agree on it; whether it mirrors."""

    map: np.ndarray
    agreeing: int
    mirrors: bool


@dataclass(frozen=True)
class Sketch:
    """What is known of a picture: its sketch, uint8 [H, W, 3], and its landmarks (see `curation.scorers.copies`).

    hashes: uint64 [K]. places: float32 [K, 5]. larger: the sketch that this one is reduced from, which keeps the
    features for all pictures that it is compared with.
    """

    rgb: np.ndarray
    hashes: np.ndarray
    places: np.ndarray
    larger: Sketch | None = None

    @classmethod
    def from_columns(cls, hashes: bytes, places: bytes, sketch: bytes) -> Sketch:
        """A sketch from the columns of the scorer `copies`."""
        import cv2

        image = cv2.imdecode(np.frombuffer(sketch, np.uint8), cv2.IMREAD_COLOR)
        found = np.frombuffer(places, "<f2").reshape(-1, 5).astype(np.float32)
        return cls(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.frombuffer(hashes, "<u8"), found)

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
    def afar(self) -> np.ndarray:
        """float32 [h, w]: luma as it is seen from afar, with a long side of 16."""
        import cv2

        height, width = self.luma.shape
        size = max(2, round(_AFAR * width / self.side)), max(2, round(_AFAR * height / self.side))
        return cv2.resize(self.luma, size, interpolation=cv2.INTER_AREA).astype(np.float32)

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

    @property
    def side(self) -> int:
        """Long side, pixels."""
        return max(self.rgb.shape[:2])

    def at(self, side: int) -> Sketch:
        """The sketch reduced to this long side."""
        return self if side >= self.side else Sketch(reduced(self.rgb, side), self.hashes, self.places, self)


def stretched(first: Sketch, second: Sketch) -> np.ndarray:
    """Map of the whole first picture onto the whole second one: float64 [2, 3], pixels."""
    (h, w), (height, width) = first.luma.shape, second.luma.shape
    return np.array([[width / w, 0, 0], [0, height / h, 0]])


def proposed(first: Sketch, second: Sketch) -> Proposal | None:
    """Map of the first picture onto the second on which most landmarks agree; None without landmarks that agree.

    Every pair of landmarks with about the same hash proposes one, since each knows its size and direction.
    """
    apart = np.bitwise_count(first.hashes[:, None] ^ second.hashes[None])
    i, j = np.nonzero(apart <= _HAMMING)
    if not len(i):
        return None
    a, b = first.places[i], second.places[j]
    mirrored = a[:, 4] != b[:, 4]
    flip = np.where(mirrored, -1.0, 1.0)
    # A mirrored direction θ is π − θ; what is left is a rotation.
    turn = np.radians(b[:, 3]) - np.where(mirrored, np.pi - np.radians(a[:, 3]), np.radians(a[:, 3]))
    scale = b[:, 2] / a[:, 2]
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    x, y = a[:, 0] * flip, a[:, 1]
    moved = b[:, :2] - np.stack([cos * x - sin * y, sin * x + cos * y], axis=1)
    # Where each proposal puts each landmark: [proposals, landmarks].
    px, py = a[None, :, 0] * flip[:, None], a[None, :, 1]
    u = cos[:, None] * px - sin[:, None] * py + moved[:, :1]
    v = sin[:, None] * px + cos[:, None] * py + moved[:, 1:]
    near = np.hypot(u - b[None, :, 0], v - b[None, :, 1]) < _NEAR
    near &= mirrored[:, None] == mirrored[None]
    best = int(near.sum(axis=1).argmax())
    proposal = np.array(
        [[cos[best] * flip[best], -sin[best], moved[best, 0]], [sin[best] * flip[best], cos[best], moved[best, 1]]]
    )
    fitted = _fitted(a[near[best], :2], b[near[best], :2])
    chosen = proposal if fitted is None else fitted
    linear = chosen[:, :2] * (second.side / first.side)
    shift = chosen[:, 2] * second.side + (linear.sum(axis=1) - 1) / 2  # shares are of edges, pixels of their middles
    agreeing = min(len(np.unique(i[near[best]])), len(np.unique(j[near[best]])))
    return Proposal(np.concatenate([linear, shift[:, None]], axis=1), agreeing, bool(mirrored[best]))


def shown(first: Sketch, second: Sketch, map_: np.ndarray) -> float:
    """Share of either picture that the other shows once it is laid on it, the lower one: 0 to 1."""
    import cv2

    (h, w), (height, width) = first.luma.shape, second.luma.shape
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]]) @ map_[:, :2].T + map_[:, 2]
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    area, _ = cv2.intersectConvexConvex(corners.astype(np.float32), frame)
    scaled = abs(float(np.linalg.det(map_[:, :2])))
    return float(min(area / (width * height), area / max(scaled * w * h, 1e-9)))


def likeness(first: Sketch, second: Sketch, map_: np.ndarray) -> float:
    """Correlation of light and dark where both show something, seen from afar, so that the map may be a little off.

    −1 to 1; 0 where nothing is to be seen.
    """
    import cv2

    (h, w), (height, width) = first.afar.shape, second.afar.shape
    of_first = np.diag([w / first.luma.shape[1], h / first.luma.shape[0]])
    of_second = np.diag([width / second.luma.shape[1], height / second.luma.shape[0]])
    linear, half = of_second @ map_[:, :2] @ np.linalg.inv(of_first), np.full(2, 0.5)
    shift = of_second @ (map_[:, 2] + half - map_[:, :2] @ half) - half + linear @ half  # pixels are their middles
    small, flags = np.column_stack([linear, shift]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    there = cv2.warpAffine(np.ones_like(second.afar), small, (w, h), flags=flags) > 0.99
    if not there.any():
        return 0.0
    one, two = first.afar[there], cv2.warpAffine(second.afar, small, (w, h), flags=flags)[there]
    one, two = one - one.mean(), two - two.mean()
    return float(one @ two / max(float(np.linalg.norm(one) * np.linalg.norm(two)), 1.0))


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


def _fitted(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """Affine map of points a [N, 2] onto b by least squares; None where they are too few or on a line."""
    if len(a) < 4:
        return None
    spread = np.linalg.svd(a - a.mean(axis=0), compute_uv=False)
    if spread[1] < 0.1:
        return None
    known = np.concatenate([a, np.ones((len(a), 1))], axis=1)
    return np.linalg.lstsq(known, b, rcond=None)[0].T


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
