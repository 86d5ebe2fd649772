"""Every pair of 64-bit hashes that differ in a few bits: exact, by sorting them in many arrangements of their bits.

Hashes within r bits agree in at least m − r of m bands of bits (multi-index hashing: Norouzi et al., 2012). For each
choice of m − r bands the hashes are arranged so that these bands lead, and sorted: what agrees in them lies side by
side, and is compared there, without looking anything up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb

import numpy as np

HASH_BITS = 64
# Seconds, measured on one core: each arrangement, arranging and sorting a hash, and comparing it with one neighbour.
_CALL, _SORT, _COMPARE = 1e-4, 1.5e-8, 8e-10
EVENNESS = 0.8  # share of a hash's bits that tell pictures apart: the lowest frequencies usually agree
_TOGETHER = 1 << 15  # hashes compared at once: what the processor's cache holds
_MOST = 0.08  # share of the hashes from which on all are compared with their neighbours, not only those that agree


@dataclass(frozen=True)
class Arrangement:
    """Some bands lead, the others follow; both from the highest bits to the lowest.

    bands: (first bit, width) of each, from the lowest. leading: numbers of those that lead, ascending.
    """

    bands: Sequence[tuple[int, int]]
    leading: Sequence[int]

    @cached_property
    def rest(self) -> int:
        """Bits that do not lead."""
        return HASH_BITS - sum(self.bands[n][1] for n in self.leading)

    @cached_property
    def moves(self) -> list[tuple[int, int, int]]:
        """(first bit, width, first bit once arranged) of neighbouring bands that stay together."""
        moves, at = [(HASH_BITS, 0, HASH_BITS)], HASH_BITS
        for number in sorted(range(len(self.bands)), key=lambda n: (n in self.leading, n), reverse=True):
            start, width = self.bands[number]
            before, wide, _ = moves[-1]
            at -= width
            if start + width == before:
                moves[-1] = start, width + wide, at
            else:
                moves.append((start, width, at))
        return [move for move in moves if move[1]]

    def arranged(self, hashes: np.ndarray) -> np.ndarray:
        """The hashes with their bits in this order."""
        return _moved(hashes, self.moves)

    def restored(self, arranged: np.ndarray) -> np.ndarray:
        """The inverse of `arranged`."""
        return _moved(arranged, [(at, width, start) for start, width, at in self.moves])

    def is_first(self, apart: np.ndarray) -> np.ndarray:
        """Whether this is the first arrangement in which two hashes meet, bool [M]. apart: the bits that differ.

        It leads with the lowest bands in which the hashes agree: others would find the pair again.
        """
        out = np.ones(len(apart), bool)
        for number, (start, width) in enumerate(self.bands[: self.leading[-1] + 1]):
            out &= ((apart & _mask(start, width)) == 0) == (number in self.leading)
        return out


def near_hashes(hashes: np.ndarray, radius: int, kept: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
    """What `kept` gives for the pairs of hashes that differ in at most `radius` bits, some at a time, in no order.

    hashes: uint64 [N], ascending, none twice. radius: 1 to 63. kept: called on all cores at once with int64 [M, 2],
    places (first < second), M at most about N; each pair once. Memory per core: 24 bytes a hash, and that of M pairs.
    """
    if len(hashes) < 2:
        return []
    arrangements = _arrangements(_bands(len(hashes), radius), radius)

    def found(arrangement: Arrangement) -> list[np.ndarray]:
        return [kept(pairs) for pairs in _found(hashes, arrangement, radius) if len(pairs)]

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # NumPy sorts and compares outside the interpreter
        return [part for parts in pool.map(found, arrangements) for part in parts]


def _bands(count: int, radius: int) -> int:
    """Number of bands: more of them mean more arrangements, in each of which far fewer hashes agree."""

    def seconds(bands: int) -> float:
        leading = EVENNESS * HASH_BITS * (bands - radius) / bands
        return comb(bands, radius) * (_CALL + count * (_SORT + _COMPARE * (1 + count / 2 ** (leading + 1))))

    return min(range(radius + 1, min(radius + 5, HASH_BITS) + 1), key=seconds)


def _arrangements(bands: int, radius: int) -> Iterator[Arrangement]:
    edges = np.linspace(0, HASH_BITS, bands + 1).round().astype(int).tolist()
    cut = [(start, end - start) for start, end in zip(edges[:-1], edges[1:])]
    return (Arrangement(cut, chosen) for chosen in combinations(range(bands), bands - radius))


def _found(hashes: np.ndarray, arrangement: Arrangement, radius: int) -> Iterator[np.ndarray]:
    """The pairs that meet in this arrangement, and in none before it: each int64 [M, 2], M at most N."""
    lined_up = arrangement.arranged(hashes)
    lined_up.sort()
    for step, places in _neighbours(lined_up, arrangement.rest, radius):
        a, b = (arrangement.restored(lined_up[at]) for at in (places, places + step))
        first = arrangement.is_first(a ^ b)
        yield np.sort(np.searchsorted(hashes, np.stack([a[first], b[first]], axis=1)), axis=1)


def _neighbours(lined_up: np.ndarray, rest: int, radius: int) -> Iterator[tuple[int, np.ndarray]]:
    """(step, places whose hash differs in few bits from the one so many steps on) among hashes that agree in front."""
    front = np.flatnonzero((lined_up[1:] ^ lined_up[:-1]) >> np.uint64(rest)) + 1
    starts = np.concatenate([[0], front])
    lengths = np.diff(np.append(starts, len(lined_up)))  # of runs that agree in front
    step, most = 1, int(lengths.max())
    while step < most and np.maximum(lengths - step, 0).sum() > _MOST * len(lined_up):
        yield step, _all_near(lined_up, step, radius)
        step += 1
    if step >= most:
        return
    long = lengths > step
    left = np.repeat((starts + lengths)[long], lengths[long] - step)
    active = _places(starts[long], lengths[long] - step)
    while len(active):
        yield step, active[np.bitwise_count(lined_up[active] ^ lined_up[active + step]) <= radius]
        step += 1
        there = active + step < left
        active, left = active[there], left[there]


def _places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The places of runs, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) - np.repeat(ends - lengths - starts, lengths)


def _all_near(lined_up: np.ndarray, step: int, radius: int) -> np.ndarray:
    """Places whose hash differs in few bits from the one so many steps on."""
    apart, bits = np.empty(_TOGETHER, np.uint64), np.empty(_TOGETHER, np.uint8)
    places = []
    for start in range(0, len(lined_up) - step, _TOGETHER):
        count = min(_TOGETHER, len(lined_up) - step - start)
        end = start + count
        np.bitwise_xor(lined_up[start:end], lined_up[start + step : end + step], out=apart[:count])
        np.bitwise_count(apart[:count], out=bits[:count])
        places.append(start + np.flatnonzero(bits[:count] <= radius))
    return np.concatenate(places)


def _mask(start: int, width: int) -> np.uint64:
    return np.uint64(((1 << width) - 1) << start)


def _moved(values: np.ndarray, moves: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """The values with runs of bits (first, width, first afterwards) at other places."""
    out, part = np.zeros_like(values), np.empty_like(values)
    for start, width, at in moves:
        np.bitwise_and(values, _mask(start, width), out=part)
        if at > start:
            np.left_shift(part, np.uint64(at - start), out=part)
        elif at < start:
            np.right_shift(part, np.uint64(start - at), out=part)
        np.bitwise_or(out, part, out=out)
    return out
