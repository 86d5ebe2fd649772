"""Recipes: the published numbers, files, and what is wrong with them."""

from __future__ import annotations

import json

import pytest

from flywheel.core.errors import UsageError
from training.recipes import RECIPES, from_dict, load_recipe


def test_recipes_carry_the_published_numbers(tmp_path):
    table = {r.name: (r.steps, dict(r.batch), r.t2i_share, r.learning_rate) for r in RECIPES.values()}
    assert table["pretrain"] == (700_000, {256: 32_000, 512: 16_000}, 0.9, 1e-4)
    assert table["continual"] == (250_000, {512: 16_000, 1024: 8_000, 2048: 4_000}, 0.7, 2e-5)
    assert table["sft"] == (10_000, {512: 16_000, 1024: 8_000, 2048: 4_000}, 0.7, 1e-5)
    assert {(r.weight_decay, r.clip, r.dropout) for r in RECIPES.values()} == {(0.001, 1.0, 0.1)}
    path = tmp_path / "recipe.toml"
    path.write_text('base = "tiny"\nsteps = 9\nbatch = { 128 = 4 }\nstages = ["S4"]\n')
    assert load_recipe(path) == RECIPES["tiny"].change(steps=9, batch={128: 4}, stages=("S4",))
    assert from_dict(json.loads(json.dumps(RECIPES["sft"].to_dict()))) == RECIPES["sft"]
    faults = {"base = 'huge'": "unknown recipe 'huge'", "base = 'tiny'\nstep = 3": "has no step", "[": "cannot"}
    for text, message in faults.items():
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            load_recipe(path)
