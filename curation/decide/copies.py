"""Copies: pictures whose landmarks agree, such as mirrored, framed, cropped, slightly turned and gray ones.

Every landmark is lined up with those that share three of the five bands of its hash's 40 lowest frequencies, the most
similar ones side by side, and meets its neighbours. Each picture is then compared with the few pictures that it meets
most often, so the number of comparisons per picture is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from curation.decide.dedup import mixed, places_in_runs
from curation.decide.hamming import HASH_BITS, Arrangement
from flywheel.core.scratch import Scratch

PARTNERS = 12  # pictures at most that each one is compared with
_BANDS = [(0, 24), *((start, 8) for start in range(24, 64, 8))]  # the first holds the high frequencies
_LEADING = 3  # bands in which landmarks that meet agree, of the five of low frequencies
_HAMMING = 12  # bits of 64 in which hashes of one landmark may differ
_NEIGHBOURS = 2  # landmarks at most that each one meets on either side: common ones, such as letters, say nothing
_TOGETHER = 1 << 22  # meetings in memory before they are set aside …
_PICTURES = 1 << 12  # … by so many pictures, whose meetings are counted together


def candidates(hashes: np.ndarray, pictures: np.ndarray, groups: np.ndarray, *, since: int = 0) -> np.ndarray:
    """Pairs of pictures that may be copies: int64 [M, 2], ascending, each with at least one picture from `since` on.

    hashes: uint64 [landmarks]. pictures: int64 [landmarks], ascending: the picture of each. groups: integer [pictures];
    only pictures of one group are paired. Memory: about 50 bytes a landmark beyond the arguments; what many landmarks
    that meet need besides is on the disk.
    """
    pairs = [np.empty((0, 2), np.int64)]
    with Scratch() as folder:
        counted = _Meetings(folder)
        for group in np.unique(groups).tolist():
            here = np.flatnonzero(groups[pictures] == group)
            for first, second in _meetings(hashes[here], pictures[here], since):
                counted.add(first, second)
        pairs += [_most_met(codes) for codes in counted.parts()]
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)


def leaders(
    hashes: np.ndarray,
    pictures: np.ndarray,
    groups: np.ndarray,
    sketches: Callable[[np.ndarray], np.ndarray],
    *,
    since: int = 0,
    twins: np.ndarray | None = None,
) -> np.ndarray:
    """The first picture that is the same as each one: int64 [pictures]; itself where none is, or without landmarks.

    Equal pictures stand side by side wherever landmarks are lined up: together they would keep others from meeting.
    hashes, pictures, groups, since: as in `candidates`. sketches: digests, uint64 [N], of pictures, int64 [N].
    twins: int64 [T, 2], pictures below `since` that another one equals, and that one, if they are known.
    """
    leader = np.arange(len(groups))
    if twins is not None:
        leader[twins[:, 0]] = twins[:, 1]
    if not len(pictures):
        return leader
    starts = np.flatnonzero(np.diff(pictures, prepend=-1))
    here, keys = pictures[starts], np.add.reduceat(mixed(hashes), starts)
    first = leader[here] == here
    here, keys = here[first], keys[first]
    _, key, counts = np.unique(keys, return_inverse=True, return_counts=True)
    last = np.zeros(len(counts), np.int64)
    np.maximum.at(last, key, here)
    shared = (counts[key] > 1) & (last[key] >= since)
    here, key = here[shared], key[shared]
    signature = np.stack([groups[here].astype(np.uint64), key.astype(np.uint64), sketches(here)], axis=1)
    order = np.lexsort((here, *signature.T))
    begins = (np.diff(signature[order], axis=0, prepend=~signature[order[:1]]) != 0).any(axis=1)
    leader[here[order]] = here[order][np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    return leader


def _meetings(hashes: np.ndarray, pictures: np.ndarray, since: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of pictures, once per pair of landmarks that meet, and arrangement in which they do."""
    for leading in combinations(range(1, len(_BANDS)), _LEADING):
        arrangement = Arrangement(_BANDS, leading)
        rest = np.uint64(arrangement.rest)
        lined_up, owners = arrangement.arranged(hashes), pictures
        if since:
            here = _shared(lined_up >> rest, pictures >= since, HASH_BITS - arrangement.rest)
            lined_up, owners = lined_up[here], owners[here]
        order = np.argsort(lined_up, kind="stable")
        lined_up, owners = lined_up[order], owners[order]
        for step in range(1, min(_NEIGHBOURS + 1, len(order))):
            apart, a, b = lined_up[step:] ^ lined_up[:-step], owners[:-step], owners[step:]
            good = (apart >> rest == 0) & (np.bitwise_count(apart) <= _HAMMING) & (a != b)
            good &= np.maximum(a, b) >= since
            yield a[good], b[good]


def _shared(front: np.ndarray, new: np.ndarray, bits: int) -> np.ndarray:
    """Places of what a new one has in front: int64 [K]. front: uint64 [N] of so many bits. new: bool [N]."""
    there = np.zeros(1 << bits, bool)
    there[front[new]] = True
    return np.flatnonzero(there[front])


class _Meetings:
    """Meetings of pictures, set aside in files where they are many, by the first picture of each direction."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[np.ndarray] = []

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Pictures that met, int64 [M] each."""
        self._waiting += [a << 32 | b, b << 32 | a]
        if sum(map(len, self._waiting)) >= _TOGETHER:
            self._set_aside()

    def parts(self) -> Iterator[np.ndarray]:
        """Codes (picture << 32 | other), ascending: all of some pictures at a time."""
        files = sorted(self._folder.iterdir())
        if files:
            self._set_aside()
            yield from (np.sort(np.fromfile(file, np.int64)) for file in sorted(self._folder.iterdir()))
        elif self._waiting:
            yield np.sort(np.concatenate(self._waiting))

    def _set_aside(self) -> None:
        codes = np.sort(np.concatenate(self._waiting)) if self._waiting else np.empty(0, np.int64)
        self._waiting = []
        part = (codes >> 32) // _PICTURES
        edges = np.flatnonzero(np.diff(part, prepend=-1, append=-1)).tolist() if len(codes) else []
        for start, end in zip(edges, edges[1:]):
            with open(self._folder / f"{part[start]:012d}", "ab") as file:
                codes[start:end].tofile(file)


def _most_met(codes: np.ndarray) -> np.ndarray:
    """(picture, other): int64 [M, 2], the few that each picture meets most often; of equals those that come first."""
    distinct, counts = np.unique(codes, return_counts=True)
    pairs = np.stack([distinct >> 32, distinct & 0xFFFFFFFF], axis=1)
    order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    return pairs[order[places_in_runs(pairs[order, 0]) < PARTNERS]]
