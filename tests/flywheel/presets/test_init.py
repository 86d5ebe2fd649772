"""Presets: a file says what differs from its base, and what it gets wrong is named."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.presets import built_in, load_preset
from tests.broken import broken


def preset(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_every_built_in_preset_loads():
    assert {load_preset(name).name for name in built_in()} == set(built_in()) >= {"demo", "quick", "tiny"}


def test_a_file_says_only_what_differs_from_its_base(tmp_path: Path):
    tiny, mine = load_preset("tiny"), load_preset(preset(tmp_path, 'policy = "demo"\n[training]\nbase_steps = 7\n'))
    changed = replace(tiny, name="mine", policy="demo", training=replace(tiny.training, base_steps=7))
    assert mine == changed
    assert load_preset(preset(tmp_path, 'base = "quick"\n')) == replace(load_preset("quick"), name="mine")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('base = "huge"', "unknown preset 'huge'"),
        ("polcy = 1", "unknown key polcy"),
        ("[training]\nsteps = 3", "unknown key training.steps"),
        ("[evaluation]\ncfg = nan", "evaluation.cfg = nan is not a number"),
        (
            "[generator]\nkind = 'mine'\n[generator.deep]\nlimit = nan",
            "line 4: generator.deep.limit is nan: give a finite",
        ),
        (
            "[evaluation]\nscorers = { clip = { edge = inf } }",
            "evaluation.scorers.clip.edge is inf: give a finite number",
        ),
        ("threads = 99999999999999999999", "line 1: threads = 9+ is not a whole number from 1 to 4096"),
        ("[evaluation]\nsuite = 'none'", "unknown suite 'none'"),
        ("policy = ", "mine.toml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, told: str):
    with pytest.raises(UsageError, match=told):
        load_preset(preset(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ('policy = "demo"\npolcy = 1', 2, "unknown key polcy: choose from policy, threads, training"),
        ("\n[training]\nsteps = 3", 3, "unknown key training.steps: choose from recipe, base_steps"),
        ('[training]\nbase_steps = "many"', 2, "training.base_steps = 'many' is not a whole number"),
        ("[evaluation]\nhidden = true", 2, "evaluation.hidden = True is not a number or a text"),
        ("[training]\nround_stages = [1]", 2, r"training.round_stages = \[1\] is not a list"),
        ("[review]\nauto_approve = 1", 2, "review.auto_approve = 1 is not true or false"),
        ("threads = 0", 1, "threads = 0 is not a whole number from 1 to 4096"),
        ("threads = -1", 1, "threads = -1 is not a whole number from 1 to 4096"),
        ('base = "house.toml"', 1, "unknown preset 'house.toml': choose one of demo, quick, tiny, tiny-2.1$"),
        ("[rewards]\nrecipe = { kl = 1.0 }", 2, "rewards.recipe names no base"),
        ("evaluation = 3", 1, r"evaluation is not a table: write \[evaluation\]"),
        ("[evaluation]\nside = 64\nhidden = 0.9", 3, "hidden is 0.9: give a share from 0 to 0.5"),
        ("[gate]\nalpha = 2", 2, "gate.alpha is 2: give a number above 0 and below 0.5"),
        ("[evaluation]\nsuite = 'none'", 2, "unknown suite 'none'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, line: int, told: str):
    with pytest.raises(UsageError, match=f"mine.toml, line {line}: .*{told}"):
        load_preset(preset(tmp_path, text))


def test_a_half_written_preset_is_a_sentence(tmp_path: Path):
    refused = 0
    for name in built_in():
        for text in broken((resources.files("flywheel.presets") / f"{name}.toml").read_text()):
            try:
                load_preset(preset(tmp_path, text))
            except UsageError as error:
                assert "mine.toml" in str(error) and "\n" not in str(error)
                refused += 1
    assert refused > 300
