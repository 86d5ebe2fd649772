"""Sections of a preset: a number out of its range is named with its line and what would do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.presets import load_preset


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("[training]\nbase_steps = -1", "training.base_steps is -1: give a whole number of 1 or more"),
        ("[evaluation]\nsteps = 0", "evaluation.steps is 0"),
        ("[evaluation]\nheld_out = -3", "evaluation.held_out is -3"),
        ("[evaluation]\nheld_out = 1000000", "evaluation.held_out is 1000000: give a whole number from 1 to 100000"),
        (
            "[training.recipe]\nbase = 'tiny'\nlatents_dtype = 'int8'",
            "line 4: training.recipe: latents_dtype is 'int8': use one of float32, float16, bfloat16",
        ),
        ("[evaluation]\ncfg = nan", "evaluation.cfg = nan is not a number"),
        ("[attribution]\nseeds = -1", "attribution.seeds is -1"),
        ("[plan]\nremedy_share = 2.0", "plan.remedy_share is 2.0: give a number from 0 to 1"),
        ("[review]\ndeadline_hours = -1.0", "review.deadline_hours is -1.0"),
        ("[rewards]\nfloor = -1", "line 3: rewards.floor is -1: give a number from 0 to 1"),
        ("[enhancer]\nsft_steps = 3\nbatch = 0", "line 4: enhancer.batch is 0: give a whole number of 1 or more"),
        ("[enhancer]\nbatch = 1", "line 3: enhancer.batch is 1: GRPO compares rewrites of a prompt, give 2"),
        ("[gate]\nmargin = 0.1\nmargins = { object = 2.0 }", "line 4: gate.margins.object is 2.0"),
        ("[fetch]\ntimeout = 0", "line 3: fetch.timeout is 0: give a number above 0"),
        (
            "[training]\nrecipe = { base = 'tiny', learning_rate = nan }",
            "line 3: training.recipe: S1.learning_rate is nan",
        ),
        (
            "[training.recipe]\nbase = 'tiny'\n[training.recipe.S2]\nsteps = -1",
            "line 5: training.recipe: S2.steps is -1",
        ),
        ("[training.recipe]\nbase = 'tiny'\n\nclip = 0", "line 5: training.recipe: clip is 0: give a number above 0"),
        ("[training.recipe]\nbase = 'tiny'\nbatch = 3", "line 4: training.recipe: batch is 3: give a table"),
        ("[rewards]\nrecipe = { base = 'rl-tiny', kl = inf }", "line 3: rewards.recipe: kl is inf"),
        (
            "[distil.recipe]\nbase = 'dmd-tiny'\nfake_learning_rate = nan",
            "line 4: distil.recipe: fake_learning_rate is nan",
        ),
        ("[distil]\nrecipe = 'huge'", "line 3: distil.recipe: unknown recipe 'huge'"),
    ],
)
def test_a_number_out_of_range_is_named(tmp_path: Path, lines: str, said: str):
    path = tmp_path / "p.toml"
    path.write_text(f'base = "tiny"\n{lines}\n')
    with pytest.raises(UsageError, match=re.escape(said)):
        load_preset(str(path))
