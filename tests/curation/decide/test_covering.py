"""Covering designs against looking at every small set."""

from __future__ import annotations

from itertools import combinations

import pytest

from curation.decide import covering


@pytest.mark.parametrize(
    ("points", "large", "small"), [(1, 1, 1), (6, 4, 4), (7, 5, 3), (10, 9, 8), (12, 9, 8), (14, 10, 8), (64, 63, 62)]
)
def test_each_small_set_lies_in_a_chosen_one(points: int, large: int, small: int) -> None:
    chosen = covering.covering(points, large, small)
    assert all(len(set(each)) == large and list(each) == sorted(each) for each in chosen)
    bare = set(combinations(range(points), small))
    assert not bare.difference(*(combinations(each, small) for each in chosen))


@pytest.mark.parametrize(("points", "large", "small"), [(11, 8, 8), (12, 9, 8), (16, 11, 8), (9, 6, 4), (13, 8, 6)])
def test_its_size_is_about_what_is_estimated(points: int, large: int, small: int) -> None:
    """By which a design is chosen before it is made."""
    estimated = covering.size(points, large, small)
    assert 0.65 * estimated <= len(covering.covering(points, large, small)) <= 1.35 * estimated
