"""What is seen of a picture before its sketch is decoded, and how two pictures may lie on each other by that.

The few landmarks of the scorer `copies` say cheaply how two pictures may lie on each other; seen from afar, it shows
whether they do. Most pairs of pictures that share landmarks share a part alone, and are told apart here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from curation.decide.structure import CONTRAST, inside, levelled, reached, similarity

_HAMMING = 16  # bits of 64 in which two hashes of one landmark may differ
_NEAR = 0.04  # distance in which a landmark is found again, as a share of the long side
_AFAR = 256  # pixels, about, of a picture that is seen from afar, …
_WINDOW = 5  # … and side of the square that is compared at each of its places
_LONG = 1.8  # ratio of sides from which what a landmark may be off moves a picture by more than is seen from afar


@dataclass(frozen=True)
class Glimpse:
    """A picture's landmarks (see `curation.scorers.copies`), the size of its sketch, and its luma seen from afar.

    height, width: pixels of the sketch. hashes: uint64 [K]. places: float32 [K, 5]. afar: float32 [h, w].
    """

    height: int
    width: int
    hashes: np.ndarray
    places: np.ndarray
    afar: np.ndarray

    @classmethod
    def of(cls, hashes: bytes, places: bytes, sketch: bytes) -> Glimpse:
        """A glimpse of the columns of the scorer `copies`."""
        import cv2
        import simplejpeg

        height, width = simplejpeg.decode_jpeg_header(sketch)[:2]
        scale = (_AFAR / (height * width)) ** 0.5
        coarse = cv2.IMREAD_REDUCED_GRAYSCALE_8 if scale * 8 <= 1 else cv2.IMREAD_GRAYSCALE
        luma = cv2.imdecode(np.frombuffer(sketch, np.uint8), coarse)
        size = max(2, round(width * scale)), max(2, round(height * scale))
        afar = cv2.resize(luma, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        found = np.frombuffer(places, "<f2").reshape(-1, 5).astype(np.float32)
        return cls(height, width, np.frombuffer(hashes, "<u8"), found, afar)

    @property
    def side(self) -> int:
        """Long side of the sketch, pixels."""
        return max(self.height, self.width)

    @property
    def long(self) -> bool:
        """Whether its short side is too few pixels from afar for a map that is a little off, as a panorama's is."""
        return self.side > _LONG * min(self.height, self.width)


Seen = TypeVar("Seen", bound=Glimpse)


def larger_first(first: Seen, second: Seen) -> tuple[Seen, Seen]:
    """Both, the larger sketch first: laying one picture on another does not always say what the reverse says."""

    def key(seen: Seen) -> tuple[int, bytes, bytes]:
        return seen.height * seen.width, seen.hashes.tobytes(), seen.afar.tobytes()

    return (first, second) if key(first) >= key(second) else (second, first)


class Proposal(NamedTuple):
    """Map of one picture onto another, float64 [2, 3], pixels; landmarks that agree on it; whether it mirrors."""

    map: np.ndarray
    agreeing: int
    mirrors: bool


def stretched(first: Glimpse, second: Glimpse) -> np.ndarray:
    """Map of the whole first picture onto the whole second one: float64 [2, 3], pixels."""
    h, w, height, width = first.height, first.width, second.height, second.width
    return np.array([[width / w, 0, 0], [0, height / h, 0]])


def proposed(first: Glimpse, second: Glimpse) -> Proposal | None:
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
    agreeing = min(len(set(found[near[best]].tolist())) for found in (i, j))
    return Proposal(np.concatenate([linear, shift[:, None]], axis=1), agreeing, bool(mirrored[best]))


def shown(first: Glimpse, second: Glimpse, map_: np.ndarray) -> float:
    """Share of either picture that the other shows once it is laid on it, the lower one: 0 to 1."""
    import cv2

    h, w, height, width = first.height, first.width, second.height, second.width
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]]) @ map_[:, :2].T + map_[:, 2]
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    area, _ = cv2.intersectConvexConvex(corners.astype(np.float32), frame)
    scaled = abs(float(np.linalg.det(map_[:, :2])))
    return float(min(area / (width * height), area / max(scaled * w * h, 1e-9)))


def alike(first: Glimpse, second: Glimpse, map_: np.ndarray) -> float:
    """Structural similarity from afar that all but a fifth of the places reach, where both pictures show something.

    −1 to 1; 1 where too little is to be seen, 0 where they do not lie on each other. A map may be a little off.
    """
    import cv2

    (h, w), (height, width) = first.afar.shape, second.afar.shape
    of_first, of_second = np.array([w / first.width, h / first.height]), np.array([width, height])
    of_second = of_second / (second.width, second.height)
    linear = of_second[:, None] * map_[:, :2] / of_first
    half = np.full(2, 0.5)  # pixels are their middles
    shift = of_second * (map_[:, 2] + half - map_[:, :2] @ half) - half + linear @ half
    small, flags = np.column_stack([linear, shift]), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    there = cv2.warpAffine(np.ones_like(second.afar), small, (w, h), flags=flags) > 0.99
    if not there.any():
        return 0.0
    other = levelled(cv2.warpAffine(second.afar, small, (w, h), flags=flags), first.afar, there)
    found, mine, yours = similarity(first.afar, other, _WINDOW)
    counts = inside(there, _WINDOW) & (np.maximum(mine, yours) > CONTRAST)
    return reached(found[counts]) if counts.any() else 1.0


def _fitted(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """Affine map of points a [N, 2] onto b by least squares; None where they are too few or on a line."""
    if len(a) < 4:
        return None
    spread = np.linalg.svd(a - a.mean(axis=0), compute_uv=False)
    if spread[1] < 0.1:
        return None
    known = np.concatenate([a, np.ones((len(a), 1))], axis=1)
    return np.linalg.lstsq(known, b, rcond=None)[0].T
