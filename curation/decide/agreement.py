"""Do two pictures agree once one is laid upon the other? Compared in their sketches, aligned by their landmarks.

Structural similarity (Wang et al., 2004) is taken at every place. Two pictures agree as far as it reaches in four
fifths of what has contrast. They do not agree where marks differ, such as text: on flat ground any mark, in a
photograph a strong one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from curation.scorers.copies import FLAT, flat, reduced

_HAMMING = 16  # bits of 64 in which two hashes of one landmark may differ
_NEAR = 0.04  # distance in which a landmark is found again, as a share of the long side
_OVERLAP = 0.55  # least share of either picture that the other must show
_WINDOW = 11  # pixels: side of the square that is compared at each place
_NOISE = 40.0  # square levels: variance of what compression leaves
_CONTRAST = 60.0  # square levels: least variance of a place that counts …
_STROKES = 250.0  # … and of one that may hold text on a photograph
_ENOUGH = 0.02  # least share of places that count
_QUANTILE = 0.2  # of the places may agree less
_OTHER = 0.5  # similarity below which a place differs on flat ground …
_OTHER_STROKE = 0.35  # … and on a photograph
_REGION = 5  # pixels: smallest side of a place that differs
_SPECKS = 0.004  # share of the picture that may differ where one had to be turned, cropped or moved
_CHROMA = 32  # levels in which colours of coloured copies may differ
_GRAY = 8  # levels: chroma of a gray picture
_ALIGNED = 0.9  # similarity from which the alignment is not improved
_STEPS, _STEP_SIDE = 25, 160  # steps of the improvement (ECC: Evangelidis and Psarakis, 2008), pixels that it works on
_WEDGE, _SAME = 0.06, 4  # largest share of a corner that turning filled with one tone, and its levels


@dataclass(frozen=True)
class Sketch:
    """What is known of a picture: its sketch, uint8 [H, W, 3], and its landmarks (see `curation.scorers.copies`).

    hashes: uint64 [K]. places: float32 [K, 5].
    """

    rgb: np.ndarray
    hashes: np.ndarray
    places: np.ndarray

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

    @property
    def side(self) -> int:
        """Long side, pixels."""
        return max(self.rgb.shape[:2])

    def at(self, side: int) -> Sketch:
        """The sketch reduced to this long side."""
        return self if side >= self.side else Sketch(reduced(self.rgb, side), self.hashes, self.places)


@dataclass(frozen=True)
class Agreement:
    """How two pictures agree: `share`, 0 to 1, and whether text or marks differ."""

    share: float
    differs: bool

    @property
    def holds(self) -> bool:
        """Whether no better alignment is needed."""
        return self.share >= _ALIGNED and not self.differs


class Rules(NamedTuple):
    """Whether chroma must agree; what counts as a mark: least contrast, and similarity below which it differs."""

    colours: bool
    contrast: float
    other: float


def agreement(first: Sketch, second: Sketch, *, colours: bool = False) -> Agreement:
    """Lay the second picture on the first and compare. colours: chroma must agree too, unless one picture is gray."""
    side = min(first.side, second.side)
    first, second = first.at(side), second.at(side)
    plain = max(flat(s.luma) for s in (first, second)) >= FLAT
    rules = Rules(colours, *((_CONTRAST, _OTHER) if plain else (_STROKES, _OTHER_STROKE)))
    found, whole = _transform(first, second), _stretched(first, second)
    best = _compared(first, second, whole, rules, 0)
    if best.share >= _ALIGNED:  # they lie on each other as they are: nothing may differ
        return best
    if found is not None:
        best = max(best, _compared(first, second, found, rules, _SPECKS), key=_rank)
    if (found is not None or best.share > _OTHER) and not best.holds:
        improved = _improved(first, second, whole if found is None else found)
        if improved is not None:
            best = max(best, _compared(first, second, improved, rules, _SPECKS), key=_rank)
    return best


def _rank(found: Agreement) -> tuple[bool, bool, float]:
    """Of several alignments, one on which the pictures agree is right; without one, a difference seen on any counts."""
    agrees = found.share > _OTHER
    return agrees, found.differs != agrees, found.share


# Alignment -----------------------------------------------------------------------------------------------------------
def _stretched(first: Sketch, second: Sketch) -> np.ndarray:
    """Map of the whole first picture onto the whole second one: float64 [2, 3], pixels."""
    (h, w), (height, width) = first.luma.shape, second.luma.shape
    return np.array([[width / w, 0, 0], [0, height / h, 0]])


def _transform(first: Sketch, second: Sketch) -> np.ndarray | None:
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
    return np.concatenate([linear, shift[:, None]], axis=1)


def _fitted(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """Affine map of points a [N, 2] onto b by least squares; None where they are too few or on a line."""
    if len(a) < 4:
        return None
    spread = np.linalg.svd(a - a.mean(axis=0), compute_uv=False)
    if spread[1] < 0.1:
        return None
    known = np.concatenate([a, np.ones((len(a), 1))], axis=1)
    return np.linalg.lstsq(known, b, rcond=None)[0].T


def _improved(first: Sketch, second: Sketch, start: np.ndarray) -> np.ndarray | None:
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


# Comparison ----------------------------------------------------------------------------------------------------------
def _compared(first: Sketch, second: Sketch, found: np.ndarray, rules: Rules, specks: float) -> Agreement:
    """specks: share of the picture that may differ, as it does at edges where the alignment is not exact."""
    none = Agreement(0.0, False)
    import cv2

    height, width = first.luma.shape
    turned = abs(float(np.linalg.det(found[:, :2])))
    if not 0.05 < turned < 20:
        return none
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    there = cv2.warpAffine(second.filled, found, (width, height), flags=flags) == 255
    there &= first.filled == 255
    if there.mean() < _OVERLAP or there.sum() * turned < _OVERLAP * second.luma.size:
        return none
    other = cv2.warpAffine(second.luma, found, (width, height), flags=flags)
    a, b = first.luma.astype(np.float32), _levelled(other.astype(np.float32), first.luma, there)
    similarity, mine, yours = _similarity(a, b)
    square = np.ones((_WINDOW, _WINDOW), np.uint8)
    inside = cv2.erode(there.astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)) > 0
    counts = inside & (np.maximum(mine, yours) > _CONTRAST)
    if counts.sum() < _ENOUGH * inside.sum() or not counts.any():
        return Agreement(1.0, False) if not counts.any() else _plain(similarity, counts, inside)
    share = max(0.0, float(np.quantile(similarity[counts], _QUANTILE)))
    if rules.colours and not _same_colours(first, second, found, there):
        return none
    marks = inside & (np.maximum(mine, yours) > rules.contrast) & (similarity < rules.other)
    return Agreement(share, bool(_region(marks).sum() > specks * inside.size))


def _plain(similarity: np.ndarray, counts: np.ndarray, inside: np.ndarray) -> Agreement:
    """Nearly empty pictures: all that is there must agree."""
    share = max(0.0, float(np.quantile(similarity[counts], _QUANTILE)))
    return Agreement(share, bool(_region(counts & (similarity < _OTHER)).any()))


def _levelled(other: np.ndarray, luma: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The other picture with the mean and the deviation of this one."""
    mine, yours = luma[there].astype(np.float32), other[there]
    gain = (float(mine.std()) + 1) / (float(yours.std()) + 1)
    return (other - float(yours.mean())) * gain + float(mine.mean())


def _similarity(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(structural similarity without its luminance term, variances of both) around each place; float32 [H, W] each."""
    import cv2

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (_WINDOW, _WINDOW))

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    return (2 * cov + _NOISE) / (va + vb + _NOISE), va, vb


def _region(places: np.ndarray) -> np.ndarray:
    """The places that are not mere specks."""
    import cv2

    return cv2.erode(places.astype(np.uint8), np.ones((_REGION, _REGION), np.uint8)) > 0


def _same_colours(first: Sketch, second: Sketch, found: np.ndarray, there: np.ndarray) -> bool:
    import cv2

    height, width = first.luma.shape
    other = cv2.warpAffine(second.rgb, found, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    planes = [cv2.blur(cv2.cvtColor(p, cv2.COLOR_RGB2YCrCb), (_WINDOW, _WINDOW))[..., 1:] for p in (first.rgb, other)]
    chroma = [p[there].astype(np.int16) - 128 for p in planes]
    if any(np.quantile(np.abs(c), 0.99) <= _GRAY for c in chroma):
        return True
    return bool(np.quantile(np.abs(chroma[0] - chroma[1]), 0.99) <= _CHROMA)
