"""Duplicates against a brute-force reading of the rule, and in any order."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.decide import dedup
from curation.decide.dedup import preference, related, resolve
from curation.decide.thumbnails import Thumbnails


def duplicates(
    order: np.ndarray,
    hashes: np.ndarray,
    colours: np.ndarray,
    groups: np.ndarray,
    fixed: np.ndarray,
    *,
    hamming: int,
    colour: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(survivor row or −1, Hamming distance to it) of each row.

    order: row numbers, best first. hashes, colours, groups: as in `related`. fixed: bool [N], rows that are never
    dropped but still push others out.
    """
    survivor, distance = np.full(len(order), -1, np.int64), np.zeros(len(order), np.int64)
    pairs = related(hashes, Thumbnails.of(colours), groups, hamming=hamming, colour=colour)
    taking_part = order[np.isin(order, pairs.rows)]
    rows, by, apart = resolve(pairs, taking_part, fixed[taking_part])
    survivor[rows], distance[rows] = by, apart
    return survivor, distance


def brute(order: np.ndarray, hashes: np.ndarray, colours: np.ndarray, groups: np.ndarray, r: int, t: int) -> np.ndarray:
    """The rule, word for word: best first, a row is dropped by the best survivor within both tolerances."""
    survivor = np.full(len(order), -1)
    for place, row in enumerate(order):
        for better in order[:place]:
            near = bin(int(hashes[row]) ^ int(hashes[better])).count("1") <= r
            same = np.abs(colours[row].astype(int) - colours[better].astype(int)).max() <= t
            if survivor[better] < 0 and groups[row] == groups[better] and near and same:
                survivor[row] = better
                break
    return survivor


def clustered(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signatures in a few clumps, so that there are duplicates, near-misses and chains."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**63, 4, dtype=np.uint64)
    bits = [rng.choice(64, rng.integers(0, 4), replace=False) for _ in range(count)]
    flips = np.array([sum(1 << int(b) for b in flipped) for flipped in bits], np.uint64)
    hashes = centres[rng.integers(0, 4, count)] ^ flips
    colours = (rng.integers(0, 2, (count, 1)) * 40 + rng.integers(0, 9, (count, 6))).astype(np.uint8)
    return hashes, colours, rng.integers(0, 2, count)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60), hamming=st.integers(0, 6), colour=st.integers(0, 12))
def test_equals_the_rule(seed: int, count: int, hamming: int, colour: int) -> None:
    hashes, colours, groups = clustered(seed, count)
    order = np.random.default_rng(seed + 1).permutation(count)
    free = np.zeros(count, bool)
    survivor, distance = duplicates(order, hashes, colours, groups, free, hamming=hamming, colour=colour)
    expected = brute(order, hashes, colours, groups, hamming, colour)
    assert ((survivor >= 0) == (expected >= 0)).all()
    for row in np.flatnonzero(survivor >= 0):
        assert survivor[survivor[row]] < 0, "a survivor was dropped itself"
        assert distance[row] <= hamming


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 60))
def test_the_order_of_the_input_does_not_matter(seed: int, count: int) -> None:
    hashes, colours, groups = clustered(seed, count)
    rng = np.random.default_rng(seed)
    pixels, sharpness = rng.integers(1, 4, count), rng.integers(0, 3, count).astype(float)
    ids, uris = np.array([f"{n:03d}" for n in range(count)]), np.array(["u"] * count)
    free = np.zeros(count, bool)

    def dropped(shuffle: np.ndarray) -> dict[str, str]:
        order = preference(pixels[shuffle], sharpness[shuffle], ids[shuffle], uris[shuffle], ~free, free)
        survivor, _ = duplicates(order, hashes[shuffle], colours[shuffle], groups[shuffle], free, hamming=3, colour=8)
        names = ids[shuffle]
        return {names[row]: names[survivor[row]] for row in np.flatnonzero(survivor >= 0)}

    assert dropped(np.arange(count)) == dropped(rng.permutation(count))


def test_the_survivor_is_sound_then_has_the_most_pixels_then_the_most_sharpness() -> None:
    pixels, sharpness = np.array([10, 20, 20, 20]), np.array([9.0, 1.0, 2.0, 2.0])
    ids, uris = np.array(["a", "b", "d", "c"]), np.array(["u"] * 4)
    none, first = np.zeros(4, bool), np.arange(4) == 0
    assert preference(pixels, sharpness, ids, uris, ~none, none).tolist() == [3, 2, 1, 0]
    assert preference(pixels, sharpness, ids, uris, first, none).tolist() == [0, 3, 2, 1]
    assert preference(pixels, sharpness, ids, uris, ~first, first).tolist() == [0, 3, 2, 1]


def test_fixed_rows_push_out_and_stay() -> None:
    hashes, colours = np.zeros(3, np.uint64), np.zeros((3, 6), np.uint8)
    fixed = np.array([True, True, False])
    survivor, _ = duplicates(np.arange(3), hashes, colours, np.zeros(3, np.int64), fixed, hamming=2, colour=2)
    assert survivor.tolist() == [-1, -1, 0]


def test_many_equal_pictures_cost_no_more_than_one() -> None:
    count = 200_000  # 2e10 pairs: only possible when equals are folded first
    hashes, colours = np.zeros(count, np.uint64), np.zeros((count, 192), np.uint8)
    none = np.zeros(count, np.int64)
    survivor, _ = duplicates(np.arange(count), hashes, colours, none, none.astype(bool), hamming=4, colour=8)
    assert (survivor[1:] == 0).all()


@pytest.mark.parametrize("kinds", [2, 1000], ids=["rows of two hashes", "hashes all near"])
def test_memory_does_not_grow_with_the_pairs_that_hashes_alone_make(
    kinds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a million pairs of which no two pictures have the same colours, each pair 16 bytes."""
    monkeypatch.setattr(dedup, "_CHECKED", 1 << 12)
    rng = np.random.default_rng(0)
    hashes, colours = rng.permutation(1000) % kinds, rng.integers(0, 256, (1000, 12), dtype=np.uint8)
    tracemalloc.start()
    found = related(hashes.astype(np.uint64), Thumbnails.of(colours), np.zeros(1000, np.int64), hamming=10, colour=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not len(found.rows) and peak < 3e6


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), old=st.integers(0, 40), new=st.integers(0, 40))
def test_what_is_known_and_what_is_new_make_the_whole(seed: int, old: int, new: int) -> None:
    hashes, colours, groups = clustered(seed, old + new)
    at_once = related(hashes, Thumbnails.of(colours), groups, hamming=3, colour=8)
    known = related(hashes[:old], Thumbnails.of(colours[:old]), groups[:old], hamming=3, colour=8)
    added = related(hashes, Thumbnails.of(colours), groups, hamming=3, colour=8, since=old)
    assert not len(added.near) or (added.near.max(axis=1) >= old).all()
    pairs = np.concatenate([known.near, added.near])
    assert sorted(map(tuple, pairs.tolist())) == sorted(map(tuple, at_once.near.tolist()))
    assert set(known.rows) | set(added.rows) == set(at_once.rows)


@pytest.mark.parametrize("seed", range(40))
def test_new_rows_give_the_pairs_that_comparing_all_gives(seed: int) -> None:
    """Whatever the radius, from a few rows that all resemble each other to many that do not."""
    rng = np.random.default_rng(seed)
    count, hamming, colour = int(rng.integers(1, 200)), int(rng.integers(0, 12)), int(rng.integers(0, 3))
    kinds = rng.integers(0, 2**64, max(1, count // 4), dtype=np.uint64)
    hashes = kinds[rng.integers(0, len(kinds), count)]
    for _ in range(int(rng.integers(0, 6))):
        bits = np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64)
        hashes ^= np.where(rng.random(count) < 0.5, bits, np.uint64(0))
    colours, groups = rng.integers(0, 3, (count, 4), dtype=np.uint8), rng.integers(0, 2, count)
    since = int(rng.integers(0, count + 1))
    every, old = (
        related(hashes[:n], Thumbnails.of(colours[:n]), groups[:n], hamming=hamming, colour=colour)
        for n in (count, since)
    )
    equal = old.rows != old.representatives
    twins = np.stack([old.rows[equal], old.representatives[equal]], axis=1)
    for known in (None, twins):
        new = related(hashes, Thumbnails.of(colours), groups, hamming=hamming, colour=colour, since=since, twins=known)
        later = every.near[:, 1] >= since
        assert np.array_equal(new.near, every.near[later]) and np.array_equal(new.apart, every.apart[later])
        mine = {r: h for r, h in zip(new.rows.tolist(), new.representatives.tolist()) if r != h}
        assert mine == {r: h for r, h in zip(every.rows.tolist(), every.representatives.tolist()) if r != h}
