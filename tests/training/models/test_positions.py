"""MSRoPE positions of a layout."""

from __future__ import annotations

from training.models.positions import positions


def test_positions_by_hand():
    assert positions((2, (2, 3), 1, (1, 1))).tolist() == [
        [0, 0, 0], [1, 1, 1],
        [2, -1, -2], [2, -1, -1], [2, -1, 0], [2, 0, -2], [2, 0, -1], [2, 0, 0],
        [5, 5, 5],
        [6, -1, -1],
    ]  # fmt: skip
