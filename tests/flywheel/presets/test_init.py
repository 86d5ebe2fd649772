"""Presets: a file says what differs from its base, and what it gets wrong is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.presets import built_in, load_preset


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
        ("[evaluation]\nsuite = 'none'", "unknown suite 'none'"),
        ("policy = ", "mine.toml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, told: str):
    with pytest.raises(UsageError, match=told):
        load_preset(preset(tmp_path, text))
