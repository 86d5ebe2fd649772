"""Recipes of distillation: grids, weights of teachers, and values that cannot work."""

from __future__ import annotations

import pytest

from flywheel.core.errors import UsageError
from training.dmd.recipe import DMD_RECIPES, dmd_recipe


def test_named_recipes_end_their_grid_at_zero():
    for name, known in DMD_RECIPES.items():
        assert known.name == name and known.times[0] == 1 and known.times[-1] == 0
        assert known.to_dict()["sigmas"] == known.sigmas


def test_teachers_weigh_equally_unless_the_recipe_says_otherwise():
    two = dmd_recipe("dmd-tiny", teachers=["a", "b"])
    assert [two.weight(t, 0) for t in (0, 1)] == [0.5, 0.5] and dmd_recipe("dmd-tiny").weight(0, 3) == 1
    own = dmd_recipe("dmd-tiny", teachers=["a", "b"], teacher_weights=[[0.7], [0.1, 0.2, 0.3, 0.4]])
    assert [own.weight(0, step) for step in range(4)] == [0.7] * 4
    assert [own.weight(1, step) for step in range(4)] == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sigmas": [0.5, 0.7]}, "are not a time grid"),
        ({"output": "noise"}, "output is 'noise': use one of clean, end"),
        ({"t2i_share": 1.5}, "t2i_share is 1.5: give a number from 0 to 1"),
        ({"teachers": ["a", "b"], "teacher_weights": [[1.0]]}, "give 2 rows, each of 1 or 4 weights"),
        ({"teacher_weights": [[1.0, 2.0]]}, "give 1 rows, each of 1 or 4 weights"),
        ({"sigma": [1.0]}, "recipe dmd-tiny has no sigma"),
    ],
)
def test_what_cannot_work_is_named(changes: dict, told: str):
    with pytest.raises(UsageError, match=told):
        dmd_recipe("dmd-tiny", **changes)
    with pytest.raises(UsageError, match="unknown recipe 'dmd-huge'"):
        dmd_recipe("dmd-huge")
