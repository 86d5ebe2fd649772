"""Copies: pictures whose landmarks agree, such as mirrored, framed, cropped, slightly turned and gray ones.

Every landmark meets the landmarks that share three of the five bands of its hash's 40 lowest frequencies. Each picture
is then compared with the few pictures that it meets most often, so the number of comparisons per picture is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from curation.decide.dedup import masks, meeting, mixed, nearest

PARTNERS = 8  # pictures at most that each one is compared with
_BITS, _BANDS, _APART = 40, 5, 2  # lowest frequencies that are looked up, their bands, and bands that may differ
_HAMMING = 12  # bits of 64 in which hashes of one landmark may differ
_NEIGHBOURS = 16  # landmarks at most that each one meets per lookup: common ones, such as letters, say nothing
_TOGETHER = 1 << 24  # meetings in memory before they are counted


def candidates(hashes: np.ndarray, pictures: np.ndarray, groups: np.ndarray, *, since: int = 0) -> np.ndarray:
    """Pairs of pictures that may be copies: int64 [M, 2], ascending, each with at least one picture from `since` on.

    hashes: uint64 [landmarks]. pictures: int64 [landmarks], ascending: the picture of each. groups: integer [pictures];
    only pictures of one group are paired.
    """
    count = len(groups)
    pairs, meetings = np.empty(0, np.int64), np.empty(0, np.int64)
    for waiting in _in_parts(_meetings(hashes, pictures, groups, since)):
        pairs, places = np.unique(np.concatenate([pairs, *waiting]), return_inverse=True)
        known = np.concatenate([meetings, *(np.ones(len(w), np.int64) for w in waiting)])
        meetings = np.bincount(places.ravel(), known, len(pairs)).astype(np.int64)
    if not len(pairs):
        return np.empty((0, 2), np.int64)
    split = np.stack(np.divmod(pairs, count), axis=1)
    return split[nearest(split, -meetings, PARTNERS)]


def _meetings(hashes: np.ndarray, pictures: np.ndarray, groups: np.ndarray, since: int) -> Iterator[np.ndarray]:
    """Codes (first × pictures + second) of pairs of pictures, once per pair of landmarks and lookup."""
    groups, count = groups.astype(np.uint64), np.int64(len(groups))
    of = groups[pictures] << np.uint64(32)
    for mask in masks(_BANDS, _APART, high=64, low=64 - _BITS):
        key = mixed(mixed(hashes & mask) ^ of)
        for a, b in meeting(key, np.arange(len(hashes)), most=_NEIGHBOURS):
            first, second = pictures[a], pictures[b]
            good = (first != second) & (second >= since) & (groups[first] == groups[second])
            good &= np.bitwise_count(hashes[a] ^ hashes[b]) <= _HAMMING
            yield first[good] * count + second[good]


def _in_parts(codes: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
    waiting: list[np.ndarray] = []
    for part in codes:
        waiting.append(part)
        if sum(map(len, waiting)) >= _TOGETHER:
            yield waiting
            waiting = []
    yield waiting
