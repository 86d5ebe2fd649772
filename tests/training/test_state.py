"""The learning rate's fall."""

from __future__ import annotations

import pytest


def test_a_falling_rate_ends_at_its_share():
    from training.state import falling

    assert [falling(0.1, step, 4) for step in range(4)] == pytest.approx([1.0, 0.7, 0.4, 0.1])
    assert falling(1.0, 3, 4) == falling(0.1, 0, 1) == 1.0
