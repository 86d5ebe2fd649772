"""Copies meet by their landmarks, and the pairs to compare stay few."""

from __future__ import annotations

import numpy as np
import pytest

from curation.decide import copies
from curation.decide.copies import PARTNERS, candidates, leaders
from tests.curation.copied import COPIES, again, scene, sketch


def _joined(hashes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(hashes), np.repeat(np.arange(len(hashes)), [len(h) for h in hashes])


def test_copies_of_every_kind_meet() -> None:
    originals = [scene(seed) for seed in range(12)]
    pictures = originals + [again(change(image)) for change in COPIES.values() for image in originals]
    pairs = candidates(*_joined([sketch(p).hashes for p in pictures]), np.zeros(len(pictures), np.int64))
    found = {(a, b) for a, b in pairs.tolist()}
    met = [(n, n + len(originals) * k) in found for k in range(1, len(COPIES) + 1) for n in range(len(originals))]
    assert np.mean(met) >= 0.95
    assert (pairs[:, 0] < pairs[:, 1]).all()


def test_groups_stay_apart_and_known_pairs_are_not_returned() -> None:
    hashes = [sketch(scene(seed)).hashes for seed in (1, 2, 1, 2)]
    joined = _joined(hashes)
    assert candidates(*joined, np.zeros(4, np.int64)).tolist() == [[0, 2], [1, 3]]
    assert candidates(*joined, np.zeros(4, np.int64), since=3).tolist() == [[1, 3]]
    assert candidates(*joined, np.array([0, 0, 1, 0])).tolist() == [[1, 3]]
    assert candidates(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64)).shape == (0, 2)


def test_a_landmark_that_all_pictures_have_stays_cheap() -> None:
    rng = np.random.default_rng(0)
    count, own = 3000, 8
    hashes = rng.integers(0, 2**64, (count, own), dtype=np.uint64)
    hashes[:, 0] = hashes[0, 0]  # a logo
    hashes[-1] = hashes[0]
    pairs = candidates(hashes.ravel(), np.repeat(np.arange(count), own), np.zeros(count, np.int64))
    assert len(pairs) <= 2 * PARTNERS * count and [0, count - 1] in pairs.tolist()


def _crowd(count: int, seed: int = 0) -> np.ndarray:
    """Landmarks of pictures that share parts with hundreds of others: uint64 [count, 32], a few bits off each."""
    rng = np.random.default_rng(seed)
    parts = rng.integers(0, 2**64, (20, 32), dtype=np.uint64)
    hashes = parts[rng.integers(0, 20, (count, 4))][:, :, :8].reshape(count, 32)
    for _ in range(3):
        hashes = hashes ^ np.uint64(1) << rng.integers(0, 64, hashes.shape).astype(np.uint64)
    return hashes


def test_a_copy_is_found_in_a_crowd() -> None:
    """Of landmarks that hundreds of pictures have, the most similar ones meet."""
    hashes = _crowd(2000)
    hashes[1000:] = hashes[:1000][::-1] ^ (np.uint64(1) << np.uint64(30))
    pairs = candidates(hashes.ravel(), np.repeat(np.arange(2000), 32), np.zeros(2000, np.int64))
    found = {(a, b) for a, b in pairs.tolist()}
    assert all((n, 1999 - n) in found for n in range(1000)) and len(pairs) <= PARTNERS * 2000


def test_the_first_of_equal_pictures_leads_them() -> None:
    """Of pictures with the same landmarks and sketch, in one group; also where only the new ones are compared."""
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 2**64, (2, 5), dtype=np.uint64)
    none = one[:0]
    hashes, owners = _joined([none, one, two, one, none, one, one, two])
    sketches, groups = np.array([0, 1, 2, 1, 0, 9, 1, 2], np.uint64), np.array([0, 0, 0, 0, 0, 0, 1, 0])

    def read(places: np.ndarray) -> np.ndarray:
        assert 0 not in places and 4 not in places
        return sketches[places]

    whole = leaders(hashes, owners, groups, read)
    assert whole.tolist() == [0, 1, 2, 1, 4, 5, 6, 2]
    known = np.array([[3, 1]])
    assert leaders(hashes, owners, groups, read, since=6, twins=known).tolist() == whole.tolist()
    assert leaders(none, np.empty(0, np.int64), groups, read).tolist() == list(range(8))


def test_many_meetings_are_counted_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes, pictures, groups = _crowd(300).ravel(), np.repeat(np.arange(300), 32), np.arange(300) % 2
    whole = [candidates(hashes, pictures, groups, since=since) for since in (0, 200)]
    monkeypatch.setattr(copies, "_TOGETHER", 1000)
    monkeypatch.setattr(copies, "_PICTURES", 32)
    for since, expected in zip((0, 200), whole):
        assert len(expected) > 100 and (expected[:, 1] >= since).all() and not (expected % 2 @ [1, -1]).any()
        assert np.array_equal(candidates(hashes, pictures, groups, since=since), expected)
