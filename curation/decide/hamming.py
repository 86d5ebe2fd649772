"""Every pair of 64-bit hashes that differ in a few bits: exact, by sorting them in many arrangements of their bits.

Hashes within r bits differ in at most r of m bands of bits (multi-index hashing: Norouzi et al., 2012). For each set of
a covering design, whose bands may differ, the hashes are arranged so that the other bands lead, and sorted: what agrees
in them lies side by side, and is compared there, without looking anything up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, takewhile

import numpy as np

from curation.decide import covering

HASH_BITS = 64
# Seconds, measured on one core: each arrangement, arranging and sorting a hash, comparing it with one neighbour, and a
# unit of `covering.work`.
_CALL, _SORT, _COMPARE, _COVER = 1e-4, 7.5e-9, 6e-10, 5e-8
_WORK = 4_000_000  # units of it at most
_BANDS = 9  # at most so many more than may differ
EVENNESS = 0.8  # share of a hash's bits that tell pictures apart: the lowest frequencies usually agree
_TOGETHER = 1 << 16  # hashes arranged or compared at once: what the processor's cache holds
_MOST = 0.08  # share that agrees in front from which on all hashes are compared, not only those


@dataclass(frozen=True)
class Arrangement:
    """Some bands lead, the others follow; both from the highest bits to the lowest.

    bands: (first bit, width) of each, from the lowest. leading: numbers of those that lead, ascending. turns: what
    leads in each arrangement, this one among them, as bits, in their order.
    """

    bands: Sequence[tuple[int, int]]
    leading: Sequence[int]
    turns: Sequence[int] = ()

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

    def first(self, apart: np.ndarray) -> np.ndarray:
        """Places of pairs of hashes that meet in this arrangement first, int64 [K]. apart: the bits that differ."""
        agree = np.zeros(len(apart), np.uint64)
        for number, (start, width) in enumerate(self.bands):
            agree |= ((apart & _mask(start, width)) == 0).astype(np.uint64) << np.uint64(number)
        here = _as_bits(self.leading)
        places = np.flatnonzero((agree & np.uint64(here)) == here)
        agree = agree[places]
        for earlier in takewhile(lambda bits: bits != here, self.turns):
            new = (agree & np.uint64(earlier)) != earlier
            if not new.all():
                places, agree = places[new], agree[new]
        return places


def near_hashes(hashes: np.ndarray, radius: int, kept: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
    """What `kept` gives for the pairs of hashes that differ in at most `radius` bits, some at a time, in no order.

    hashes: uint64 [N], ascending, none twice. radius: 1 to 63. kept: called on all cores at once with int64 [M, 2],
    places (first < second), M at most about N; each pair once. Memory per core: 8 bytes a hash, and that of M pairs.
    """
    if len(hashes) < 2:
        return []
    arrangements = _arrangements(len(hashes), radius)

    def found(arrangement: Arrangement) -> list[np.ndarray]:
        return [kept(pairs) for pairs in _found(hashes, arrangement, radius) if len(pairs)]

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # NumPy sorts and compares outside the interpreter
        return [part for parts in pool.map(found, arrangements) for part in parts]


def _arrangements(count: int, radius: int) -> list[Arrangement]:
    """Those that are estimated to take the least time: more bands lead in more of them, and far fewer hashes agree."""

    def seconds(design: tuple[int, int]) -> float:
        bands, following = design
        leading = EVENNESS * HASH_BITS * (bands - following) / bands
        each = _CALL + count * (_SORT + _COMPARE * (1 + count / 2 ** (leading + 1)))
        return covering.size(*design, radius) * each + covering.work(*design, radius) * _COVER

    most = min(radius + _BANDS, HASH_BITS)
    designs = [(bands, n) for bands in range(radius + 1, most + 1) for n in range(radius, bands)]
    bands, following = min((d for d in designs if covering.work(*d, radius) <= _WORK), key=seconds)
    edges = np.linspace(0, HASH_BITS, bands + 1).round().astype(int).tolist()
    cut = [(start, end - start) for start, end in zip(edges[:-1], edges[1:])]
    leading = [sorted(set(range(bands)) - set(each)) for each in covering.covering(bands, following, radius)]
    turns = [_as_bits(each) for each in leading]
    return [Arrangement(cut, each, turns) for each in leading]


def _found(hashes: np.ndarray, arrangement: Arrangement, radius: int) -> Iterator[np.ndarray]:
    """The pairs that meet in this arrangement, and in none before it: each int64 [M, 2], M at most about N."""
    lined_up = arrangement.arranged(hashes)
    lined_up.sort()
    for places, steps in _some_at_a_time(_neighbours(lined_up, arrangement.rest, radius), len(hashes)):
        first = arrangement.first(arrangement.restored(lined_up[places] ^ lined_up[places + steps]))
        a, b = (arrangement.restored(lined_up[at[first]]) for at in (places, places + steps))
        yield np.sort(np.searchsorted(hashes, np.stack([a, b], axis=1)), axis=1)


def _some_at_a_time(parts: Iterator[tuple[np.ndarray, int]], most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The (places, step) of many small parts, joined into (places, steps) of about `most`."""
    held: list[tuple[np.ndarray, int]] = []
    waiting = 0
    for part in chain(parts, [(np.empty(0, np.int64), 0)]):
        held.append(part)
        waiting += len(part[0])
        if waiting >= most or (not part[1] and waiting):
            yield np.concatenate([p for p, _ in held]), np.repeat([s for _, s in held], [len(p) for p, _ in held])
            held, waiting = [], 0


def _neighbours(lined_up: np.ndarray, rest: int, radius: int) -> Iterator[tuple[np.ndarray, int]]:
    """(places, step): hashes that differ in few bits from the one so many steps on; all that agree in front are tried.

    A stretch at a time, so that it stays in the processor's cache; in each, as long as many agree in front with the
    hash that many steps on, all are compared, which is cheaper than to choose.
    """
    front = np.uint64(1 << rest)  # what differs by less agrees in front
    apart, bits = np.empty(_TOGETHER, np.uint64), np.empty(_TOGETHER, np.uint8)
    for start in range(0, len(lined_up) - 1, _TOGETHER):
        step, active = 0, np.arange(0)
        while (count := min(_TOGETHER, len(lined_up) - start - step - 1)) > 0:
            step += 1
            np.bitwise_xor(lined_up[start : start + count], lined_up[start + step :][:count], out=apart[:count])
            np.bitwise_count(apart[:count], out=bits[:count])
            if len(near := np.flatnonzero(bits[:count] <= radius)):
                yield start + near, step
            agree = apart[:count] < front
            if np.count_nonzero(agree) <= _MOST * count:
                active = start + np.flatnonzero(agree)
                break
        while len(active):
            step += 1
            active = active[: np.searchsorted(active, len(lined_up) - step)]
            differing = lined_up[active] ^ lined_up[active + step]
            agree = differing < front
            active = active[agree]
            if len(near := active[np.bitwise_count(differing[agree]) <= radius]):
                yield near, step


def _as_bits(numbers: Sequence[int]) -> int:
    return sum(1 << n for n in numbers)


def _mask(start: int, width: int) -> np.uint64:
    return np.uint64(((1 << width) - 1) << start)


def _moved(values: np.ndarray, moves: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """The values with runs of bits (first, width, first afterwards) at other places."""
    out, part = np.zeros_like(values), np.empty(min(_TOGETHER, len(values)), np.uint64)
    for begin in range(0, len(values), _TOGETHER):
        some, moved = values[begin : begin + _TOGETHER], out[begin : begin + _TOGETHER]
        run = part[: len(some)]
        for start, width, at in moves:
            np.bitwise_and(some, _mask(start, width), out=run)
            if at > start:
                np.left_shift(run, np.uint64(at - start), out=run)
            elif at < start:
                np.right_shift(run, np.uint64(start - at), out=run)
            np.bitwise_or(moved, run, out=moved)
    return out
