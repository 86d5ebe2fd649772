"""What a round pins: each input by its digest, so that another one is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.core.files import file_digest, write_bytes, write_json
from flywheel.core.workspace import Workspace
from flywheel.presets import load_preset
from flywheel.rounds.pins import code_version, pins

PRESET = load_preset("tiny")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    filled = Workspace(tmp_path / "w")
    write_json(filled.snapshot("s"), {"policy": "demo", "policy_sha256": "abc"})
    write_bytes(filled.suite, b'{"prompt": "a"}\n{"prompt": "b"}\n')
    write_bytes(filled.path("checkpoints", "one", "ema.safetensors"), b"weights")
    return filled


def test_every_input_is_there(workspace: Workspace) -> None:
    pinned = pins(workspace, "s", "checkpoints/one", PRESET, seed=3)
    assert (pinned.snapshot, pinned.policy, pinned.seed) == ("s", {"name": "demo", "sha256": "abc"}, 3)
    weights = workspace.path("checkpoints", "one", "ema.safetensors")
    assert (pinned.incumbent, pinned.checkpoint) == ("checkpoints/one", file_digest(weights))
    (suite,) = pinned.suites
    assert suite == {"path": "suite/suite.jsonl", "sha256": file_digest(workspace.suite), "prompts": 2}
    assert pins(workspace, "s", None, PRESET, seed=3).checkpoint is None


def test_any_change_shows(workspace: Workspace) -> None:
    before = pins(workspace, "s", "checkpoints/one", PRESET, seed=3)
    other = replace(PRESET, training=replace(PRESET.training, base_steps=PRESET.training.base_steps + 1))
    assert pins(workspace, "s", "checkpoints/one", other, seed=3).preset["sha256"] != before.preset["sha256"]
    write_bytes(workspace.suite, b'{"prompt": "a"}\n')
    write_bytes(workspace.path("checkpoints", "one", "ema.safetensors"), b"other weights")
    after = pins(workspace, "s", "checkpoints/one", PRESET, seed=3)
    assert after.suites[0]["prompts"] == 1 and after.suites[0]["sha256"] != before.suites[0]["sha256"]
    assert after.checkpoint != before.checkpoint and after.preset == before.preset


def test_the_code_is_named_by_version_and_content() -> None:
    version, _, content = code_version().partition("+")
    assert version[0].isdigit() and len(content) == 12 and int(content, 16) >= 0
