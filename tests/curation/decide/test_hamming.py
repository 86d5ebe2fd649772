"""Near hashes against comparing every pair."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.decide import hamming
from curation.decide.hamming import near_hashes


def around_centres(seed: int, count: int, flips: int) -> np.ndarray:
    """Distinct hashes that differ in up to `flips` bits from one of four."""
    rng = np.random.default_rng(seed)
    out = rng.integers(0, 2**64, 4, dtype=np.uint64)[rng.integers(0, 4, count)]
    for _ in range(flips):
        out ^= rng.integers(0, 2, count).astype(np.uint64) << rng.integers(0, 64, count).astype(np.uint64)
    return np.unique(out)


def pairs_of(hashes: np.ndarray, radius: int) -> np.ndarray:
    return np.concatenate([np.empty((0, 2), np.int64), *near_hashes(hashes, radius, lambda pairs: pairs)])


def brute(hashes: np.ndarray, radius: int) -> set[tuple[int, int]]:
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None])
    return set(zip(*(places.tolist() for places in np.nonzero(np.triu(apart <= radius, 1)))))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 300),
    flips=st.integers(1, 30),
    radius=st.integers(1, 12),
    together=st.sampled_from([1, 7, 64, 1 << 16]),
)
def test_each_pair_is_found_once(seed: int, count: int, flips: int, radius: int, together: int) -> None:
    """However few hashes are compared at once: a run of alike ones may cross from one stretch to the next."""
    hashes = around_centres(seed, count, flips)
    with patch.object(hamming, "_TOGETHER", together):
        pairs = [tuple(pair) for pair in pairs_of(hashes, radius).tolist()]
    assert len(set(pairs)) == len(pairs) and set(pairs) == brute(hashes, radius)


@pytest.mark.parametrize("radius", [1, 40, 63])
def test_radii_of_every_size(radius: int) -> None:
    hashes = around_centres(1, 30, 20)
    assert {tuple(pair) for pair in pairs_of(hashes, radius).tolist()} == brute(hashes, radius)


def test_many_hashes_are_compared_with_their_neighbours_alone() -> None:
    """100,000 random hashes, 500 of them 6 bits from another: no other two are as near."""
    rng = np.random.default_rng(0)
    distinct = rng.integers(0, 2**64, 100_000, dtype=np.uint64)
    bits = np.stack([rng.permutation(64)[:6] for _ in range(500)]).astype(np.uint64)
    twins = distinct[:500] ^ np.bitwise_or.reduce(np.uint64(1) << bits, axis=1)
    hashes = np.unique(np.concatenate([distinct, twins]))
    found = {tuple(sorted(pair)) for pair in hashes[pairs_of(hashes, 6)].tolist()}
    assert found == {tuple(sorted(pair)) for pair in zip(distinct[:500].tolist(), twins.tolist())}
