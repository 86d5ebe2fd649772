"""Few sets of bands so that, whichever of them differ, all that differ lie in one: a covering design."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np

_MORE = 0.6  # a covering's size over the least conceivable one grows by so much with each element beyond `small`


def size(points: int, large: int, small: int) -> int:
    """About how many sets `covering` needs."""
    if large == small:
        return comb(points, small)
    return round(comb(points, small) / comb(large, small) * (1 + _MORE * (large - small)))


def work(points: int, large: int, small: int) -> int:
    """How many pairs of a large and a small set `covering` looks at: 25 bytes of memory each."""
    return 0 if large == small else comb(points, small) * comb(points - small, large - small)


def covering(points: int, large: int, small: int) -> list[tuple[int, ...]]:
    """Sets of `large` numbers below `points`, ascending, of which each set of `small` numbers lies in one or more.

    Next is always one with the most small sets that lie in none so far.
    """
    if large == small:
        return list(combinations(range(points), small))
    sets = list(combinations(range(points), large))
    inside = _inside(sets, points, small)
    around = np.argsort(inside, axis=None, kind="stable").reshape(comb(points, small), -1) // inside.shape[1]
    gain = np.full(len(sets), inside.shape[1])
    bare = np.ones(len(around), bool)
    chosen = []
    while bare.any():
        best = int(gain.argmax())
        chosen.append(sets[best])
        covered = inside[best][bare[inside[best]]]
        bare[covered] = False
        gain -= np.bincount(around[covered].ravel(), minlength=len(sets))
    return chosen


def _inside(sets: Sequence[tuple[int, ...]], points: int, small: int) -> np.ndarray:
    """Numbers of the small sets in each of these sets, int32 [N, M]."""
    bits = np.uint64(1) << np.array(sets, np.uint64)
    known = np.sort(np.array([sum(1 << n for n in each) for each in combinations(range(points), small)], np.uint64))
    columns = [bits[:, each].sum(axis=1) for each in combinations(range(bits.shape[1]), small)]
    return np.searchsorted(known, np.stack(columns, axis=1)).astype(np.int32)
