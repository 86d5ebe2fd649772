"""Prompts rewritten by the command; training is in `tests/flywheel/remedies/test_enhancer_training.py`."""

from __future__ import annotations

import json
from pathlib import Path

from flywheel.core.workspace import Workspace
from tests.flywheel.cli.command import flywheel, wrong


def test_a_prompt_is_rewritten_by_rules() -> None:
    plain = flywheel("enhancer", "try", "pls draw me 2 cats")
    assert plain.returncode == 0 and "2 cats" not in plain.stdout and "two cats" in plain.stdout.lower()
    told = json.loads(flywheel("enhancer", "try", "pls draw me 2 cats", "--json").stdout)
    assert told == {"prompt": "pls draw me 2 cats", "enhanced": plain.stdout.strip()}


def test_a_prompt_that_needs_nothing_comes_out_as_it_is() -> None:
    prompt = "two red circles on a white card"
    assert flywheel("enhancer", "try", prompt).stdout.strip() == prompt
    assert json.loads(flywheel("enhancer", "try", prompt, "--json").stdout)["enhanced"] is None


def test_wrong_usage(tmp_path: Path) -> None:
    assert "is not a causal LM: pass a folder or a hub tag" in wrong(
        "enhancer", "try", "a cat", "--backend", "/no/such/model"
    )
    grpo = ("enhancer", "grpo", "--model", "m", "--data", tmp_path / "d.jsonl", "--output", tmp_path / "o")
    Workspace(tmp_path / "w")
    assert "pass --workspace and --prompts together" in wrong(*grpo, "-w", tmp_path / "w")
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("")
    assert "pass --workspace and --prompts together" in wrong(*grpo, "--prompts", prompts)
    assert "has no promoted checkpoint" in wrong(*grpo, "-w", tmp_path / "w", "--prompts", prompts)
