"""Thumbnails in a file say what those in memory would."""

from __future__ import annotations

import numpy as np
import pytest

import curation.decide.thumbnails as module
from curation.decide.thumbnails import Thumbnails


@pytest.mark.parametrize("width", [0, 1, 7, 12, 192])
@pytest.mark.parametrize("block", [5, 1 << 17])
def test_pairs_are_as_far_apart_as_in_memory(width: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(module, "_GAP", 3)
    rng = np.random.default_rng(width)
    values = rng.integers(0, 256, (90, width), dtype=np.uint8)
    values[45:] = np.clip(
        values[:45].astype(int) + rng.integers(-1, 2, (45, width)) * rng.integers(0, 60, (45, 1)), 0, 255
    )
    values[80:] = values[35:45]
    a, b = (v.ravel() for v in np.meshgrid(np.arange(90), np.arange(90)))
    order = rng.permutation(len(a))
    a, b = a[order], b[order]
    apart = np.abs(values[a].astype(int) - values[b].astype(int)).max(axis=1, initial=0)
    found = Thumbnails.of(values)
    assert len(found) == 90 and (found.equal(a, b) == (apart == 0)).all()
    for levels in (0, 1, 20, 48, 254, 255):
        near = found.near(a, b, levels)
        assert (near == (apart <= levels)).all()
        assert found.may_be_near(a, b, levels)[near].all(), "what is near is never passed over"
    if width == 192:
        assert found.may_be_near(a, b, 20).mean() < 0.5 and not found.near(a, b, 20).all()


def test_rows_are_written_in_any_order_and_read_back() -> None:
    values = np.random.default_rng(0).integers(0, 256, (50, 9), dtype=np.uint8)
    made = Thumbnails(50, 9)
    for first in (30, 0, 10, 40, 20):
        made.write(first, values[first : first + 10])
    rows = np.array([0, 3, 29, 30, 49])
    assert (made.read(rows) == values[rows]).all() and not len(made.read(rows[:0]))
    assert (made.digests == Thumbnails.of(values).digests).all()
