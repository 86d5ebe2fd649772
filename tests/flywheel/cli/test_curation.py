"""Policies shown and compared."""

import json
from pathlib import Path

from flywheel.core.workspace import Workspace
from tests.flywheel.cli.command import flywheel, wrong


def test_policies_are_shown_and_compared(tmp_path: Path):
    shown = flywheel("policy", "show", "demo", "--json")
    assert json.loads(shown.stdout)["stages"][0]["name"] == "S1"
    rows = json.loads(flywheel("policy", "diff", "demo", "qwen-image-2", "--json").stdout)
    assert {"line": "S1.resolution.min", "before": 64, "after": 256} in rows
    assert "built-in policy" in wrong("policy", "show", "strict")
    Workspace(tmp_path / "w")
    assert "nothing has been curated" in wrong("what-if", "--set", "S1.resolution.min=99", "-w", tmp_path / "w")
