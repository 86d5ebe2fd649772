"""The verbs: prompts of a workspace's suite, RL, distillation, and a picture by the student."""

# ruff: noqa: F811 - fixtures are imported, and tests take them by name
from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flywheel.cases.events import Case
from flywheel.cli.main import app
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from flywheel.core.workspace import Workspace
from flywheel.demo.suite import write_suite
from flywheel.presets import Rewards
from flywheel.remedies.reward_policy import adjust, write
from flywheel.signals.suite import load_suite, write_rows
from tests.training.conftest import one_thread, snapshot, start, trained  # noqa: F401 - fixtures
from training.checkpoint import read_metrics

SMALL = """base = "rl-tiny"
steps = 1
side = 32
prompts = 1
group = 2
sampling_steps = 3
window = [0, 1]
lora_rank = 2
"""
RL = (
    SMALL
    + """held_out = 1
[weights."*"]
instruction = 1.0
"""
)
DMD = 'base = "dmd-tiny"\nsteps = 1\nside = 32\nbatch = 2\nfake_updates = 1\nsigmas = [1.0, 0.5]\nt2i_share = 1.0\n'


def call(*arguments: object) -> dict:
    """The output of a verb with --json."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_from_prompts_to_a_students_picture(tmp_path, start):
    workspace = Workspace(tmp_path / "w")
    suite = load_suite(write_suite(workspace.path("suite"), size="quick"))

    prompts, recipe, distilled = tmp_path / "p.jsonl", tmp_path / "rl.toml", tmp_path / "dmd.toml"
    recipe.write_text(RL)
    distilled.write_text(DMD)
    counts = call("rl", "prompts", "-w", workspace.root, "--output", prompts, "--capability", "object", "--count", 3)
    assert counts == {"object": 3} and not {p.text for p in load_suite(prompts)} & {p.text for p in suite}
    held = [{"prompt_id": p.prompt_id, "prompt": p.text, "task": p.task, "checks": list(p.checks)} for p in suite[:1]]
    held_out = write_rows(tmp_path / "h.jsonl", held)
    common = ("--prompts", prompts, "--checkpoint", start.path)
    trained = call("rl", "train", *common, "--held-out", held_out, "--recipe", recipe, "--output", tmp_path / "rl")
    student = call(
        "distil", *common, "--recipe", distilled, "--teacher", trained["checkpoint"], "--output", tmp_path / "s"
    )
    drawn = call(
        "sample", "a red circle", "--checkpoint", student["checkpoint"], "--size", "32x32", "--output", tmp_path
    )
    assert (drawn["steps"], drawn["cfg"]) == (2, 1.0)
    with pytest.raises(UsageError, match="give either --checkpoint DIR or --workspace W"):
        call("distil", "--prompts", prompts, "--output", tmp_path / "x")
    with pytest.raises(UsageError, match="is not a file: pass a suite"):
        call("distil", "--prompts", tmp_path / "none.jsonl", *common[2:], "--output", tmp_path / "x")


def test_a_rounds_rl_remedy_is_followed_with_one_command(tmp_path, start):
    """What the rounds write for their open RL cases is what RL reads; some of the prompts are only watched."""
    workspace = Workspace(tmp_path / "w")
    suite = load_suite(write_suite(workspace.path("suite"), size="quick"))
    cases = [Case(p.prompt_id, 1, p.checks[0]["capability"], "rl", p.prompt_id, p.text, "routed") for p in suite]
    cases = [c for c in cases if c.capability in ("object", "count")][:4]
    rule = adjust(cases, suite, {}, settings=Rewards(prompts=24))
    assert {c: n for c, n in rule["mix"].items() if n > 2}.keys() <= {"object", "count"}
    for number in (1, 2):
        folder = workspace.path("remedies", f"round-{number:04d}", "rl")
        write(folder, rule, recipe="rl-tiny", pins={}, suite=suite, retrieved=lambda *_: (), seed=number)
        recipe = folder / "recipe.toml"
        recipe.write_text(SMALL + "held_out = 2\n" + recipe.read_text().split("\n", 1)[1])
    trained = call("rl", "train", "-w", workspace.root, "--checkpoint", start.path, "--output", tmp_path / "rl")
    config = read_json(Path(trained["checkpoint"]) / "config.json")
    assert config["rl"]["weights"].keys() == {"*", *rule["categories"]} and config["rl"]["steps"] == 1
    (line,) = read_metrics(tmp_path / "rl" / "metrics.jsonl")
    assert line["held_out"].keys() == line["rewards"].keys() | {"natural"}
    assert line["watched_by"] == dict.fromkeys(line["rewards"], "natural")  # CLIP's weights are not here
    with pytest.raises(UsageError, match="has no RL remedy of round 3: a round writes one"):
        call("rl", "train", "-w", workspace.root, "--checkpoint", start.path, "--round", 3, "--output", tmp_path / "x")
    with pytest.raises(UsageError, match="give --prompts FILE, or --workspace W"):
        call("rl", "train", "--checkpoint", start.path, "--output", tmp_path / "x")
