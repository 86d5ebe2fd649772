"""Structural similarity, place by place."""

from __future__ import annotations

import numpy as np
import pytest

from curation.decide.structure import inside, levelled, reached, similarity


def test_contrast_and_light_do_not_count() -> None:
    a = np.random.default_rng(0).normal(128, 30, (40, 50)).astype(np.float32)
    there = np.ones(a.shape, bool)
    same, mine, _ = similarity(a, levelled(0.5 * a + 60, a, there), 5)
    assert same.min() > 0.99 and mine[20, 20] == pytest.approx(a[18:23, 18:23].var(), rel=1e-3)
    other, *_ = similarity(a, np.ascontiguousarray(a[::-1]), 5)
    assert abs(float(other.mean())) < 0.1


def test_only_what_is_there_levels() -> None:
    a = np.random.default_rng(1).normal(128, 30, (40, 50)).astype(np.float32)
    there = np.zeros(a.shape, bool)
    there[:, :25] = True
    other = np.where(there, a - 40, 255).astype(np.float32)
    assert np.allclose(levelled(other, a, there)[there], a[there], atol=0.01)


def test_a_place_counts_where_its_whole_square_is_there() -> None:
    there = np.zeros((20, 20), bool)
    there[5:15, 5:15] = True
    assert inside(there, 5).sum() == 36 and not inside(there, 11).any()
    assert inside(np.ones((20, 20), bool), 5).sum() == 256


def test_all_but_a_fifth_reach_it() -> None:
    found = np.random.default_rng(2).permutation(np.linspace(0, 1, 101)).astype(np.float32)
    assert reached(found) == pytest.approx(0.2) and reached(found[:1]) == found[0]
