"""The verbs: prompts of a workspace's suite, RL, distillation, and a picture by the student."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from flywheel.cli import app
from flywheel.demo.suite import write_suite
from flywheel.signals.suite import load_suite, write_rows
from flywheel.workspace import UsageError, Workspace

RL = """base = "rl-tiny"
steps = 1
side = 32
prompts = 1
group = 2
sampling_steps = 3
window = [0, 1]
lora_rank = 2
held_out = 1
[weights."*"]
instruction = 1.0
"""
DMD = 'base = "dmd-tiny"\nsteps = 1\nside = 32\nbatch = 2\nfake_updates = 1\nsigmas = [1.0, 0.5]\nt2i_share = 1.0\n'


def test_from_prompts_to_a_students_picture(tmp_path, start):
    workspace = Workspace(tmp_path / "w")
    suite = load_suite(write_suite(workspace.path("suite"), size="quick"))

    def call(*arguments: object) -> dict:
        found = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout.splitlines()[-1])

    prompts, recipe, distilled = tmp_path / "p.jsonl", tmp_path / "rl.toml", tmp_path / "dmd.toml"
    recipe.write_text(RL)
    distilled.write_text(DMD)
    made = call("rl", "prompts", "-w", workspace.root, "--output", prompts, "--capability", "object", "--count", 3)
    assert made == {"object": 3} and not {p.text for p in load_suite(prompts)} & {p.text for p in suite}
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
    with pytest.raises(UsageError, match="no suite at"):
        call("distil", "--prompts", tmp_path / "none.jsonl", *common[2:], "--output", tmp_path / "x")
