"""Duplicates: equal ids, then pictures that agree in perceptual hash and in colour. Pure numpy, near-linear time.

Which rows resemble each other (`related`) depends only on the pictures and two tolerances, and is computed once. Which
rows stay (`resolve`) depends on the policy, and is fast: a row is dropped when a better surviving row is within both
tolerances, and the best such row is named as its survivor. Rows are totally ordered, so input order does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from curation.decide.hamming import EVENNESS, HASH_BITS, near_hashes
from curation.decide.thumbnails import Thumbnails

_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplying by it permutes 64-bit numbers
_CHECKED = 1 << 20  # candidate pairs whose colours are compared at once
# Seconds, measured on one core: comparing one old row with the keys of all new ones, and checking one candidate pair.
_FILTER, _PAIR = 1.5e-8, 6e-8
_FEW_NEW = 0.05  # share of the rows below which new ones are looked up among the old ones
_TABLE = 22  # bits of a key by which old rows are passed over that no new row can meet


@dataclass(frozen=True)
class Related:
    """Rows that resemble another. Rows with equal signatures share one representative, the first of them.

    rows, representatives: int64 [K], ascending; the rows that resemble any other. near: int64 [M, 2], representatives
    within both tolerances. apart: int64 [M], their Hamming distance, or float64, the cosine of embeddings.
    """

    rows: np.ndarray
    representatives: np.ndarray
    near: np.ndarray
    apart: np.ndarray

    def kept(self, good: np.ndarray) -> Related:
        """Without the near pairs that are not good, bool [M]."""
        near = self.near[good]
        twins = np.flatnonzero(self.rows != self.representatives)
        rows = np.unique(np.concatenate([self.rows[twins], self.representatives[twins], near.ravel()]))
        return Related(rows, self.representatives[np.searchsorted(self.rows, rows)], near, self.apart[good])

    @property
    def equal(self) -> float:
        """Value of `apart` for equal rows: 0 bits, or a cosine of 1."""
        return 0 if np.issubdtype(self.apart.dtype, np.integer) else 1.0


def preference(
    pixels: np.ndarray,
    sharpness: np.ndarray,
    ids: np.ndarray,
    uris: np.ndarray,
    sound: np.ndarray,
    fixed: np.ndarray,
) -> np.ndarray:
    """Row numbers, best first: fixed rows, then sound ones, most pixels, sharpest, smallest id, smallest URI.

    sound: bool [N], rows that no later filter drops: otherwise a picture could lose to a twin that is dropped later.
    """
    return np.lexsort((uris, ids, -sharpness, -pixels.astype(np.int64), ~sound, ~fixed))


def related(
    hashes: np.ndarray,
    colours: Thumbnails,
    groups: np.ndarray,
    *,
    hamming: int,
    colour: int,
    since: int = 0,
    finer: np.ndarray | None = None,
    twins: np.ndarray | None = None,
) -> Related:
    """Which rows resemble which. Memory: about 150 bytes per row beyond the arguments.

    hashes: uint64 [N]. colours: thumbnails. groups: integer [N]; only rows of one group are compared.
    since: rows below it were compared before: `near` has only pairs with at least one row from `since` on.
    finer: uint64 [N]; rows share a representative only if these are equal too. twins: int64 [T, 2], rows below `since`
    that another equals, and that one, if they are known: old rows are then not compared with each other again.
    """
    groups = groups.astype(np.int64, copy=False)
    leader = np.arange(len(hashes))
    here = leader
    if twins is not None:
        leader[twins[:, 0]] = twins[:, 1]
        here = _beside_new(hashes, leader, since)
    kinds = np.zeros(len(hashes), np.uint64) if finer is None else finer
    leader[here] = _collapse(hashes, colours, groups, kinds, here)
    unique = np.flatnonzero(leader == np.arange(len(leader)))
    near, apart = _near(hashes, colours, groups, unique, hamming, colour, since)
    others = np.flatnonzero(leader != np.arange(len(leader)))
    rows = np.unique(np.concatenate([others, leader[others], near.ravel()]))
    return Related(rows, leader[rows], near, apart)


def _beside_new(hashes: np.ndarray, leader: np.ndarray, since: int) -> np.ndarray:
    """The new rows, and the old ones without a leader that have the hash of a new one; ascending."""
    table, shift = np.zeros(1 << _TABLE, bool), np.uint64(64 - _TABLE)
    table[(mixed(hashes[since:]) >> shift).astype(np.int64)] = True
    old = np.flatnonzero(table[(mixed(hashes[:since]) >> shift).astype(np.int64)])
    old = old[(leader[old] == old) & np.isin(hashes[old], hashes[since:])]
    return np.concatenate([old, np.arange(since, len(hashes))])


def resolve(pairs: Related, order: np.ndarray, fixed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, its survivor, Hamming distance) of each row that is dropped.

    order: numbers of the related rows to consider, best first. fixed: bool, as `order`: rows that are never dropped.
    """
    classes, best, inverse = np.unique(
        pairs.representatives[np.searchsorted(pairs.rows, order)], return_index=True, return_inverse=True
    )
    leader = best[inverse.ravel()]  # place of the best row with this signature: `order` is best first
    first, second, apart = _between(classes, best, pairs)
    survivor, distance = np.full(len(order), -1, np.int64), np.zeros(len(order), pairs.apart.dtype)
    for i, j, d in zip(first.tolist(), second.tolist(), apart.tolist()):
        if survivor[i] < 0 and survivor[j] < 0 and not fixed[j]:
            survivor[j], distance[j] = i, d
    twins = np.flatnonzero((leader != np.arange(len(order))) & ~fixed)
    head = leader[twins]
    kept = survivor[head] < 0
    equal = pairs.equal
    survivor[twins], distance[twins] = np.where(kept, head, survivor[head]), np.where(kept, equal, distance[head])
    dropped = np.flatnonzero(survivor >= 0)
    return order[dropped], order[survivor[dropped]], distance[dropped]


def nearest(pairs: np.ndarray, apart: np.ndarray, most: int) -> np.ndarray:
    """Which pairs are among the `most` nearest of either row: bool [M]. Ties go to the smaller row."""
    best = np.zeros(len(pairs), bool)
    for side in (0, 1):
        order = np.lexsort((pairs[:, 1 - side], apart, pairs[:, side]))
        best[order[places_in_runs(pairs[order, side]) < most]] = True
    return best


def places_in_runs(values: Sequence[int] | np.ndarray) -> np.ndarray:
    """Place of each value in its run of equal values, from 0."""
    values = np.asarray(values)
    if not len(values):
        return np.empty(0, np.int64)
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    return np.arange(len(values)) - np.repeat(starts, np.diff(np.r_[starts, len(values)]))


def _between(classes: np.ndarray, best: np.ndarray, pairs: Related) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Near pairs of which both classes are considered, as places (i < j) of their best rows, sorted."""
    if not len(classes) or not len(pairs.near):
        none = np.empty(0, np.int64)
        return none, none, pairs.apart[:0]
    at = np.minimum(np.searchsorted(classes, pairs.near), len(classes) - 1)
    here = (classes[at] == pairs.near).all(axis=1)
    places = np.sort(best[at[here]], axis=1)
    by = np.lexsort((places[:, 1], places[:, 0]))
    return places[by, 0], places[by, 1], pairs.apart[here][by]


# Equal signatures ----------------------------------------------------------------------------------------------------
def _collapse(
    hashes: np.ndarray, colours: Thumbnails, groups: np.ndarray, finer: np.ndarray, here: np.ndarray
) -> np.ndarray:
    """First row with exactly the same signature, for each row `here`: a thousand blank pictures cost as much as one."""
    key = colours.digests[here] ^ mixed(hashes[here] ^ mixed(finer[here]))
    key ^= groups[here].view(np.uint64) * _MIX
    packed, bits = _packed(mixed(key), np.arange(len(here)))
    rows = (packed & np.uint64((1 << bits) - 1)).astype(np.int64)
    leader = here.copy()
    high = packed >> np.uint64(bits)
    meet = np.flatnonzero(high[1:] == high[:-1])
    a, b = here[rows[meet]], here[rows[meet + 1]]
    same = (hashes[a] == hashes[b]) & (groups[a] == groups[b]) & (finer[a] == finer[b])
    same[same] = colours.equal(a[same], b[same])
    # A run of equal rows begins where a row does not equal the one before it.
    begins = np.ones(len(rows), bool)
    begins[meet[same] + 1] = False
    run = np.maximum.accumulate(np.where(begins, np.arange(len(rows)), 0))
    leader[rows] = here[rows[run]]
    return leader


# Near signatures -----------------------------------------------------------------------------------------------------
def _near(
    hashes: np.ndarray,
    colours: Thumbnails,
    groups: np.ndarray,
    unique: np.ndarray,
    hamming: int,
    colour: int,
    since: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(pairs of `unique` rows within both tolerances, [M, 2], ascending; their Hamming distance, [M])."""
    radius = min(hamming, HASH_BITS - 1)
    new = len(unique) - int(np.searchsorted(unique, since))

    def within(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return _candidates(a, b, hashes, colours, groups, hamming, colour)

    if new < _FEW_NEW * len(unique):
        parts = [within(a, b) for a, b in _meetings_of_new(hashes, groups, unique, radius, new)]
    else:
        key = mixed(mixed(hashes[unique]) ^ groups[unique].view(np.uint64) * _MIX)
        parts = [within(a, b) for a, b in meeting(key, unique)]  # equal hashes
        parts += _of_near_hashes(hashes, unique, radius, within) if radius else []
    pairs = np.concatenate([np.empty((0, 3), np.int64), *parts])
    pairs = pairs[pairs[:, 1] >= since]
    _, first = np.unique(pairs[:, 0] * np.int64(len(hashes)) + pairs[:, 1], return_index=True)
    pairs = pairs[first]
    pairs = pairs[colours.near(pairs[:, 0], pairs[:, 1], colour)]
    return pairs[:, :2], pairs[:, 2]


def _of_near_hashes(
    hashes: np.ndarray, rows: np.ndarray, radius: int, within: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> list[np.ndarray]:
    """What `within` gives for pairs of (ascending) rows whose hashes differ, in at most `radius` bits."""
    by = rows[np.argsort(hashes[rows], kind="stable")]
    distinct, starts, counts = np.unique(hashes[by], return_index=True, return_counts=True)

    def kept(pairs: np.ndarray) -> np.ndarray:
        """A pair of hashes stands for every row with the one beside every row with the other."""
        times = counts[pairs].prod(axis=1)
        ends = np.cumsum(times)
        found = []
        for start in range(0, int(ends[-1]), _CHECKED):
            places = np.arange(start, min(start + _CHECKED, ends[-1]))
            at = np.searchsorted(ends, places, side="right")
            places -= (ends - times)[at]
            one, two = pairs[at].T
            a, b = by[starts[one] + places // counts[two]], by[starts[two] + places % counts[two]]
            found.append(within(np.minimum(a, b), np.maximum(a, b)))
        return np.concatenate(found)

    return near_hashes(distinct, radius, kept)


def _meetings_of_new(
    hashes: np.ndarray, groups: np.ndarray, rows: np.ndarray, radius: int, new: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of (ascending) rows that share a choice of bands, of which the second is one of the `new` last ones.

    Two hashes within r bits agree in at least m − r of m bands of bits.
    """
    mine, group = hashes[rows], groups[rows].view(np.uint64) * _MIX
    for mask in masks(_bands(len(rows), radius, new), radius) if new else ():
        yield from _meeting_new(mixed((mine & mask) ^ group), rows, new)


def _meeting_new(key: np.ndarray, rows: np.ndarray, new: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of (ascending) rows with equal keys, of which the second is one of the `new` last ones."""
    order = len(rows) - new + np.argsort(key[-new:], kind="stable")
    wanted = key[order]
    shift = np.uint64(64 - _TABLE)
    table = np.zeros(1 << _TABLE, bool)
    table[(wanted >> shift).astype(np.int64)] = True
    maybe = np.flatnonzero(table[(key >> shift).astype(np.int64)])
    first = np.searchsorted(wanted, key[maybe], side="left")
    counts = np.searchsorted(wanted, key[maybe], side="right") - first
    maybe, first, counts = (values[counts > 0] for values in (maybe, first, counts))
    ends = np.cumsum(counts)
    start = 0
    while start < len(maybe):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + _CHECKED, side="right")))
        part = slice(start, end)
        times = counts[part]
        places = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times) + np.repeat(first[part], times)
        a, b = rows[np.repeat(maybe[part], times)], rows[order[places]]
        yield a[a < b], b[a < b]
        start = end


def _bands(count: int, radius: int, new: int) -> int:
    """Number of bands to cut a hash into: more of them mean more passes, in each of which far fewer pairs meet."""

    def seconds(m: int) -> float:
        shared = EVENNESS * HASH_BITS * (m - radius) / m
        return comb(m, radius) * (_FILTER * count + _PAIR * count * new / 2**shared)

    return min(range(radius + 1, min(radius + 5, HASH_BITS) + 1), key=seconds)


def masks(count: int, radius: int) -> Iterator[np.uint64]:
    """Every choice of count − radius out of `count` bands of a hash, as a mask of their bits."""
    edges = np.linspace(0, HASH_BITS, count + 1).round().astype(int).tolist()
    single = [((1 << end) - 1) & ~((1 << start) - 1) for start, end in zip(edges[:-1], edges[1:])]
    for chosen in combinations(single, count - radius):
        yield np.uint64(sum(chosen))


def meeting(key: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of rows with equal keys (and a few others): neighbours at distance 1, 2, … when sorted."""
    packed, bits = _packed(key, np.arange(len(rows)))
    high = packed >> np.uint64(bits)
    active = np.flatnonzero(high[1:] == high[:-1])
    step = 1
    while len(active):
        low = np.uint64((1 << bits) - 1)
        for start in range(0, len(active), _CHECKED):
            part = active[start : start + _CHECKED]
            a, b = (packed[part] & low).astype(np.int64), (packed[part + step] & low).astype(np.int64)
            yield rows[np.minimum(a, b)], rows[np.maximum(a, b)]
        step += 1
        active = active[active + step < len(high)]
        active = active[high[active] == high[active + step]]


def _candidates(
    a: np.ndarray, b: np.ndarray, hashes: np.ndarray, colours: Thumbnails, groups: np.ndarray, hamming: int, colour: int
) -> np.ndarray:
    """Pairs with near hashes, of one group, whose colours may be near; with their Hamming distance: int64 [M, 3]."""
    apart = np.bitwise_count(hashes[a] ^ hashes[b]).astype(np.int64)
    close = (apart <= hamming) & (groups[a] == groups[b])
    a, b, apart = a[close], b[close], apart[close]
    maybe = colours.may_be_near(a, b, colour)
    return np.stack([a[maybe], b[maybe], apart[maybe]], axis=1)


def mixed(key: np.ndarray) -> np.ndarray:
    """A permutation of 64-bit numbers whose high bits depend on every bit."""
    key = (key ^ (key >> np.uint64(32))) * _MIX
    return (key ^ (key >> np.uint64(29))) * _MIX


def _packed(key: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, int]:
    """(high bits of each key above its number, sorted; bits of the number): one plain sort instead of an argsort."""
    bits = max(1, int(len(numbers) - 1).bit_length()) if len(numbers) else 1
    low = np.uint64((1 << bits) - 1)
    packed = (key & ~low) | numbers.astype(np.uint64)
    packed.sort()
    return packed, bits
