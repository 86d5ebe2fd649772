"""A checkpoint judges its own pictures, and the bad ones are mined."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import resources

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.demo.suite import write_suite
from flywheel.generators import describe, open_generator
from flywheel.presets import load_preset
from flywheel.signals.mining import read_judgements
from flywheel.signals.self_evaluation import self_evaluate
from flywheel.signals.suite import load_suite
from tests.flywheel.cli.command import flywheel, wrong


def test_a_checkpoint_judges_its_own_pictures_and_the_bad_ones_are_mined(one_step, tmp_path):
    write_suite(tmp_path / "suite", size="quick")
    few = tmp_path / "few.jsonl"
    few.write_text("".join((tmp_path / "suite" / "suite.jsonl").read_text().splitlines(keepends=True)[:3]))
    workspace, preset = Workspace(tmp_path / "w"), tmp_path / "p.toml"
    text = (resources.files("flywheel.presets") / "tiny.toml").read_text()
    preset.write_text(re.sub(r"(?m)^steps = .*$", "steps = 1", re.sub(r"(?m)^side = .*$", "side = 32", text)))
    verb = ("signals", "judge", one_step, "-w", workspace.root, "--suite", few, "--preset", preset, "--seeds", "2")
    counts = json.loads(flywheel(*verb, "--json").stdout)
    judged = read_judgements(next(workspace.path("judgements").glob("[!.]*"))).to_pylist()
    assert {r["seed"] for r in judged} == {0, 1} and len({r["prompt_id"] for r in judged}) == 3
    assert all(workspace.path(r["image"]).exists() for r in judged)
    signals = Ledger(workspace, "signals").rows()
    assert sum(counts.values()) == len(signals) > 0  # one training step draws no scene
    assert json.loads(flywheel(*verb, "--json").stdout) == {}, "nothing is new the second time"
    assert len(Ledger(workspace, "signals").rows()) == len(signals)
    asked = [replace(p, checks=p.checks[:1]) for p in load_suite(few)]  # other checks are another judgement
    generator = open_generator(describe(one_step))
    settings = load_preset(str(preset)).evaluation
    other = self_evaluate(workspace, generator, str(one_step), asked, range(2), settings)
    assert read_judgements(other).num_rows == 6 and len(list(workspace.path("judgements").glob("[!.]*"))) == 2
    assert "is not a checkpoint" in wrong("signals", "judge", tmp_path, "-w", workspace.root, "--suite", few)
    assert "give a suite file with --suite" in wrong("signals", "judge", one_step, "-w", workspace.root)
