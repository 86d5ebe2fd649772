"""Recipes from a file."""

from __future__ import annotations

import pytest

from flywheel.core.errors import UsageError
from training.recipe_file import load
from training.rl.recipe import RL_RECIPES


def test_recipes_from_a_file(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('base = "rl-tiny"\nwindow = [1, 3]\n[weights."*"]\nocr = 1.0\n')
    assert load(str(path), RL_RECIPES).window == (1, 3) and load(str(path), RL_RECIPES).rewards == ("ocr",)
    faults = {"steps = 3": "names no base", "base = 'rl-tiny'\nstep_count = 3": "has no step_count", "[": "cannot read"}
    for text, message in faults.items():
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            load(str(path), RL_RECIPES)
