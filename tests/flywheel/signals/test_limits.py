"""Limits between what true pictures and what nulls reach."""

import pytest

from flywheel.signals.limits import between


@pytest.mark.parametrize(
    ("inner", "outer", "limit"),
    [
        ([1.0] * 50, [100.0] * 50, 10.0),  # of many magnitudes: the geometric mean
        ([-100.0] * 50, [-1.0] * 50, -10.0),
        ([-1.0] * 50, [1.0] * 50, 0.0),
        ([0.0] * 50, [4.0] * 50, 2.0),
        ([5.0] * 50, [1.0] * 50, 5.0),  # they overlap: every true picture stays inside
    ],
)
def test_a_limit_lies_half_way_where_the_two_are_apart(inner: list[float], outer: list[float], limit: float):
    assert between(inner, outer) == pytest.approx(limit)
