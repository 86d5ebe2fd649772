"""Colours are told apart, from each other and from every ground."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np

from curation.scorers.background import MIN_CONTRAST, to_lab
from flywheel.demo.palette import BACKGROUNDS, INKS, SIZES


def distance(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    """ΔE of two colours."""
    one, other = to_lab(np.array([[a, b]], np.uint8))[0]
    return float(np.linalg.norm(one - other))


def test_inks_stand_out() -> None:
    assert min(distance(a, b) for a, b in product(INKS.values(), BACKGROUNDS.values())) > 2 * MIN_CONTRAST
    assert min(distance(a, b) for a, b in combinations(INKS.values(), 2)) > MIN_CONTRAST
    assert min(distance(a, b) for a, b in combinations(BACKGROUNDS.values(), 2)) > 10


def test_sides_are_multiples_of_a_patch() -> None:
    assert all(side % 16 == 0 for side in SIZES)
