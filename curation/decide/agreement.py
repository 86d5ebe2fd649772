"""Do two pictures agree once one is laid upon the other? Compared in their sketches, aligned by their landmarks.

Structural similarity (Wang et al., 2004) is taken at every place. Two pictures agree as far as it reaches in four
fifths of what has contrast. They do not agree where marks differ, such as text: on flat ground any mark, in a
photograph a strong one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from curation.decide.alignment import AGREEING, Sketch, exact, improved
from curation.decide.glimpse import Glimpse, Proposal, alike, larger_first, proposed, shown, stretched
from curation.decide.structure import CONTRAST, inside, levelled, reached, similarity
from curation.scorers.copies import FLAT, flat

_OVERLAP = 0.55  # least share of either picture that the other must show …
_PROPOSED = 0.51  # … and least share by a proposal, which is not exact: of crops to 60 % often 0.516
_WINDOW = 11  # pixels: side of the square that is compared at each place
_STROKES = 250.0  # square levels: least variance of a place that may hold text on a photograph
_ENOUGH = 0.02  # least share of places that count
_OTHER = 0.5  # similarity below which a place differs on flat ground …
_OTHER_STROKE = 0.35  # … and on a photograph
_REGION = 5  # pixels: smallest side of a place that differs
_APART = 54.0  # levels, mean of 3 × 3 pixels, that pictures which lie on each other differ in: copies 38 and less
_SPECKS = 0.004  # share of the picture that may differ where one had to be turned, cropped or moved
_CHROMA = 32  # levels in which colours of coloured copies may differ
_GRAY = 8  # levels: chroma of a gray picture
_ALIGNED = 0.9  # similarity from which the alignment is not improved
_FROM_AFAR = 0.2  # least similarity from afar of pictures that landmarks alone say to be copies: 999 of 1,000 reach it


@dataclass(frozen=True)
class Agreement:
    """How two pictures agree: `share`, 0 to 1, and whether text or marks differ."""

    share: float
    differs: bool

    @property
    def holds(self) -> bool:
        """Whether no better alignment is needed."""
        return self.share >= _ALIGNED and not self.differs


NOTHING = Agreement(0.0, False)


class Rules(NamedTuple):
    """Whether chroma must agree; what counts as a mark: least contrast, and similarity below which it differs."""

    colours: bool
    contrast: float
    other: float


def agreement(first: Sketch, second: Sketch, *, by_landmarks: bool = False) -> Agreement:
    """Lay the second picture on the first and compare.

    by_landmarks: nothing but landmarks says that they may be copies. Chroma must agree too, unless one picture is gray;
    and where little speaks for a copy, no effort is made to see which marks differ.
    """
    first, second = larger_first(first, second)
    side = min(first.side, second.side)
    first, second = first.at(side), second.at(side)
    whole = stretched(first, second)
    as_they_are, proposal = _ways(first, second, by_landmarks)
    if proposal is None and not as_they_are:
        return NOTHING
    plain = max(flat(s.luma) for s in (first, second)) >= FLAT
    rules = Rules(by_landmarks, *((CONTRAST, _OTHER) if plain else (_STROKES, _OTHER_STROKE)))
    best = NOTHING
    if as_they_are:
        best = _compared(first, second, whole, rules, 0)
        if best.share >= _ALIGNED:  # they lie on each other as they are: nothing may differ
            return best
    if (finer := exact(first, second, proposal)) is not None:
        best = max(best, _compared(first, second, finer, rules, _SPECKS), key=_rank)
        if by_landmarks or best.share > _OTHER:
            return best
    if by_landmarks and best.share <= _OTHER and (proposal is None or proposal.agreeing < AGREEING):
        return best
    if proposal is not None:
        best = max(best, _compared(first, second, proposal.map, rules, _SPECKS), key=_rank)
    if (proposal is not None or best.share > _OTHER) and not best.holds:
        stepped = improved(first, second, whole if proposal is None else proposal.map)
        if stepped is not None:
            best = max(best, _compared(first, second, stepped, rules, _SPECKS), key=_rank)
    return best


def may_agree(first: Glimpse, second: Glimpse) -> bool:
    """Whether `agreement` by landmarks is worth decoding the sketches: not where pictures share a part alone."""
    as_they_are, proposal = _ways(*larger_first(first, second), True)
    return as_they_are or proposal is not None


def _ways(first: Glimpse, second: Glimpse, by_landmarks: bool) -> tuple[bool, Proposal | None]:
    """How the second picture may lie on the first: (whether as they are, what the landmarks propose)."""

    def like(map_: np.ndarray) -> bool:
        return not by_landmarks or alike(first, second, map_) >= _FROM_AFAR

    proposal, long = proposed(first, second), first.long or second.long
    if proposal is not None and not (shown(first, second, proposal.map) >= _PROPOSED and (long or like(proposal.map))):
        proposal = None
    return like(stretched(first, second)), proposal


def _rank(found: Agreement) -> tuple[bool, bool, float]:
    """Of several alignments, one on which the pictures agree is right; without one, a difference seen on any counts."""
    agrees = found.share > _OTHER
    return agrees, found.differs != agrees, found.share


# Comparison ----------------------------------------------------------------------------------------------------------
def _compared(first: Sketch, second: Sketch, map_: np.ndarray, rules: Rules, specks: float) -> Agreement:
    """specks: share of the picture that may differ, as it does at edges where the alignment is not exact."""
    import cv2

    height, width = first.luma.shape
    turned = abs(float(np.linalg.det(map_[:, :2])))
    if not 0.05 < turned < 20:
        return NOTHING
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    there = cv2.warpAffine(second.filled, map_, (width, height), flags=flags) == 255
    there &= first.filled == 255
    if there.mean() < _OVERLAP or there.sum() * turned < _OVERLAP * second.luma.size:
        return NOTHING
    other = cv2.warpAffine(second.luma, map_, (width, height), flags=flags)
    a, b = first.luma.astype(np.float32), levelled(other.astype(np.float32), first.luma, there)
    found, mine, yours = similarity(a, b, _WINDOW)
    places = inside(there, _WINDOW)
    counts = places & (np.maximum(mine, yours) > CONTRAST)
    if counts.sum() < _ENOUGH * places.sum() or not counts.any():
        return _plain(found, counts) if counts.any() else Agreement(1.0, False)
    share = max(0.0, reached(found[counts]))
    if rules.colours and not _same_colours(first, second, map_, there):
        return NOTHING
    marks = places & (np.maximum(mine, yours) > rules.contrast) & (found < rules.other)
    differs = bool(_region(marks).sum() > specks * places.size)
    return Agreement(share, differs or (share >= _ALIGNED and not specks and _apart(a, b, places)))


def _apart(a: np.ndarray, b: np.ndarray, places: np.ndarray) -> bool:
    """Whether pictures that agree everywhere in structure differ in light at a place: a word over a strong edge."""
    import cv2

    return bool(cv2.blur(np.abs(a - b), (3, 3))[places].max(initial=0.0) > _APART)


def _plain(found: np.ndarray, counts: np.ndarray) -> Agreement:
    """Nearly empty pictures: all that is there must agree."""
    share = max(0.0, reached(found[counts]))
    return Agreement(share, bool(_region(counts & (found < _OTHER)).any()))


def _region(places: np.ndarray) -> np.ndarray:
    """The places that are not mere specks."""
    import cv2

    return cv2.erode(places.astype(np.uint8), np.ones((_REGION, _REGION), np.uint8)) > 0


def _same_colours(first: Sketch, second: Sketch, map_: np.ndarray, there: np.ndarray) -> bool:
    import cv2

    height, width = first.luma.shape
    other = cv2.warpAffine(second.chroma, map_, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    mine, yours = first.chroma.astype(np.int16) - 128, other.astype(np.int16) - 128
    gray = any(_mostly(c, there, _GRAY) for c in (mine, yours))
    return gray or _mostly(mine - yours, there, _CHROMA)


def _mostly(levels: np.ndarray, there: np.ndarray, most: int) -> bool:
    """Whether all but a hundredth of the levels [H, W, 2] are at most this far from 0, where `there` is true."""
    near = (np.abs(levels) <= most) & there[..., None]
    return int(np.count_nonzero(near)) >= 0.99 * levels.shape[-1] * np.count_nonzero(there)
