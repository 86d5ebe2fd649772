"""Recipes: the published numbers, files, and what is wrong with them."""

from __future__ import annotations

import json

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.schema import STAGES
from training.recipes import RECIPES, divided, from_dict, load_recipe, recipe


def test_the_curriculum_carries_the_published_numbers():
    whole = RECIPES["qwen-image-2"]
    phases = {name: RECIPES[name] for name in ("pretrain", "continual", "sft")}
    assert [s.name for s in whole.stages] == list(STAGES)
    assert sum((r.stages for r in phases.values()), ()) == whole.stages  # the phases are its parts
    assert {name: r.steps for name, r in phases.items()} == {"pretrain": 700_000, "continual": 250_000, "sft": 10_000}
    assert whole.batch == {256: 32_000, 512: 16_000, 1024: 8_000, 2048: 4_000}
    assert [s.t2i_share for s in whole.stages] == [1.0, 0.9, 0.9, 0.7, 0.7, 0.7]
    assert [s.learning_rate for s in whole.stages] == [1e-4, 1e-4, 1e-4, 2e-5, 2e-5, 1e-5]
    assert {(r.weight_decay, r.clip, r.dropout) for r in RECIPES.values()} == {(0.001, 1.0, 0.1)}
    tiny = RECIPES["tiny"]
    assert [s.name for s in tiny.stages] == list(STAGES) and tiny.steps == 1000
    assert [s.t2i_share for s in tiny.stages] == [s.t2i_share for s in whole.stages]


def test_a_file_changes_all_stages_or_one(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        'base = "tiny"\nsteps = 9\nbatch = { 128 = 4 }\nstages = ["S3", "S4"]\nt2i_share = 0.5\n'
        "[S4]\nsteps = 500\nt2i_share = 0.6\n"
    )
    loaded = load_recipe(path)
    assert [(s.name, s.steps, s.t2i_share, s.learning_rate) for s in loaded.stages] == [
        ("S3", 3, 0.5, 2e-3),
        ("S4", 6, 0.6, 4e-4),
    ]
    assert loaded == recipe("tiny", steps=9, batch={128: 4}, stages=("S3", "S4"), S3={"t2i_share": 0.5},
                            S4={"steps": 500, "t2i_share": 0.6})  # fmt: skip
    assert loaded.reads(["S2", "S3"], 128) and not loaded.reads(["S2"], 128) and not loaded.reads(["S3"], 64)
    assert from_dict(json.loads(json.dumps(loaded.to_dict()))) == loaded


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "base = 'huge'": "unknown recipe 'huge'",
        "base = 'tiny'\nstep = 3": "recipe tiny has no step",
        "base = 'tiny'\nstages = ['S7']": "recipe tiny has no stage 'S7': use S1, S2",
        "base = 'tiny'\nstages = []": r"has the stages \(none\)",
        "base = 'tiny'\nstages = ['S1', 'S1']": "name each once",
        "base = 'sft'\n[S1]\nsteps = 3": "recipe sft has no S1",
        "base = 'tiny'\n[S1]\nbatch = 3": "stage S1 of recipe tiny has no batch",
        "base = 'tiny'\nt2i_share = 1.5": "t2i_share is 1.5: give a number from 0 to 1",
        "base = 'tiny'\n[S1]\nsteps = -3": "S1.steps is -3: give a whole number of 0 or more",
        "name = 'mine'": "not a recipe",
        "[": "cannot",
    }.items(),
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, message):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_recipe(path)


def test_steps_are_divided_exactly():
    for total in (0, 1, 7, 1000):
        shares = divided(total, [300, 250, 250, 80, 80, 40])
        assert sum(shares) == total and min(shares) >= 0
    assert divided(500, [300, 250, 250, 80, 80, 40]) == [150, 125, 125, 40, 40, 20]
    assert divided(4, [0, 0]) == [2, 2]
