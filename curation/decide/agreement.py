"""Do two pictures agree once one is laid upon the other? Compared in their sketches, aligned by their landmarks.

Structural similarity (Wang et al., 2004) is taken at every place. Two pictures agree as far as it reaches in four
fifths of what has contrast. They do not agree where marks differ, such as text: on flat ground any mark, in a
photograph a strong one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from curation.decide.alignment import AGREEING, Proposal, Sketch, exact, improved, likeness, proposed, shown, stretched
from curation.scorers.copies import FLAT, flat

_OVERLAP = 0.55  # least share of either picture that the other must show …
_PROPOSED = 0.4  # … and least share by a proposal, which is not exact
_WINDOW = 11  # pixels: side of the square that is compared at each place
_NOISE = 40.0  # square levels: variance of what compression leaves
_CONTRAST = 60.0  # square levels: least variance of a place that counts …
_STROKES = 250.0  # … and of one that may hold text on a photograph
_ENOUGH = 0.02  # least share of places that count
_QUANTILE = 0.2  # of the places may agree less
_OTHER = 0.5  # similarity below which a place differs on flat ground …
_OTHER_STROKE = 0.35  # … and on a photograph
_REGION = 5  # pixels: smallest side of a place that differs
_APART = 54.0  # levels, mean of 3 × 3 pixels, that pictures which lie on each other differ in: copies 38 and less
_SPECKS = 0.004  # share of the picture that may differ where one had to be turned, cropped or moved
_CHROMA = 32  # levels in which colours of coloured copies may differ
_GRAY = 8  # levels: chroma of a gray picture
_ALIGNED = 0.9  # similarity from which the alignment is not improved
_SURE = 12  # landmarks that agree, from which pictures are looked at closely though they look unlike from afar
_FROM_AFAR = 0.65  # least correlation of pictures that lie on each other, seen from afar: 997 of 1,000 copies reach it


@dataclass(frozen=True)
class Agreement:
    """How two pictures agree: `share`, 0 to 1, and whether text or marks differ."""

    share: float
    differs: bool

    @property
    def holds(self) -> bool:
        """Whether no better alignment is needed."""
        return self.share >= _ALIGNED and not self.differs


_NOTHING = Agreement(0.0, False)


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
    side = min(first.side, second.side)
    first, second = first.at(side), second.at(side)
    whole, proposal = stretched(first, second), proposed(first, second)
    if proposal is not None and not _worth(first, second, proposal, by_landmarks):
        proposal = None
    as_they_are = not by_landmarks or likeness(first, second, whole) > _FROM_AFAR
    if proposal is None and not as_they_are:
        return _NOTHING
    plain = max(flat(s.luma) for s in (first, second)) >= FLAT
    rules = Rules(by_landmarks, *((_CONTRAST, _OTHER) if plain else (_STROKES, _OTHER_STROKE)))
    best = _NOTHING
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


def _worth(first: Sketch, second: Sketch, proposal: Proposal, by_landmarks: bool) -> bool:
    """Whether to lay pictures on each other as proposed: not where they share a part alone, such as a logo."""
    if shown(first, second, proposal.map) < _PROPOSED:
        return False
    return not by_landmarks or proposal.agreeing >= _SURE or likeness(first, second, proposal.map) >= _FROM_AFAR


def _rank(found: Agreement) -> tuple[bool, bool, float]:
    """Of several alignments, one on which the pictures agree is right; without one, a difference seen on any counts."""
    agrees = found.share > _OTHER
    return agrees, found.differs != agrees, found.share


# Comparison ----------------------------------------------------------------------------------------------------------
def _compared(first: Sketch, second: Sketch, found: np.ndarray, rules: Rules, specks: float) -> Agreement:
    """specks: share of the picture that may differ, as it does at edges where the alignment is not exact."""
    import cv2

    height, width = first.luma.shape
    turned = abs(float(np.linalg.det(found[:, :2])))
    if not 0.05 < turned < 20:
        return _NOTHING
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    there = cv2.warpAffine(second.filled, found, (width, height), flags=flags) == 255
    there &= first.filled == 255
    if there.mean() < _OVERLAP or there.sum() * turned < _OVERLAP * second.luma.size:
        return _NOTHING
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
        return _NOTHING
    marks = inside & (np.maximum(mine, yours) > rules.contrast) & (similarity < rules.other)
    differs = bool(_region(marks).sum() > specks * inside.size)
    return Agreement(share, differs or (share >= _ALIGNED and not specks and _apart(a, b, inside)))


def _apart(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> bool:
    """Whether pictures that agree everywhere in structure differ in light at a place: a word over a strong edge."""
    import cv2

    return bool(cv2.blur(np.abs(a - b), (3, 3))[inside].max(initial=0.0) > _APART)


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
    other = cv2.warpAffine(second.chroma, found, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    mine, yours = first.chroma.astype(np.int16) - 128, other.astype(np.int16) - 128
    gray = any(_mostly(c, there, _GRAY) for c in (mine, yours))
    return gray or _mostly(mine - yours, there, _CHROMA)


def _mostly(levels: np.ndarray, there: np.ndarray, most: int) -> bool:
    """Whether all but a hundredth of the levels [H, W, 2] are at most this far from 0, where `there` is true."""
    near = (np.abs(levels) <= most) & there[..., None]
    return int(np.count_nonzero(near)) >= 0.99 * levels.shape[-1] * np.count_nonzero(there)
