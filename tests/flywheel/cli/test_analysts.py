"""SQL on the command line."""

import json
from pathlib import Path

import pytest

from flywheel.core.workspace import Workspace
from tests.flywheel.cli.command import flywheel, wrong
from tests.flywheel.signals.judged import blind, judged


def test_sql_answers_on_an_empty_workspace_and_refuses_to_write(tmp_path: Path):
    Workspace(tmp_path / "w")
    out = flywheel("sql", "select count(*) as n from samples", "--workspace", tmp_path / "w", "--json")
    assert json.loads(out.stdout) == [{"n": 0}]
    assert "SELECT" in wrong("sql", "drop view samples", "--workspace", tmp_path / "w")
    assert "SELECT" in wrong("sql", f"copy (select 1) to '{tmp_path}/x.csv'", "--workspace", tmp_path / "w")
    assert not (tmp_path / "x.csv").exists()
    assert "no workspace" in wrong("sql", "select 1", "--workspace", tmp_path / "none")


def test_cases_of_a_status_that_is_none_are_refused(tmp_path: Path):
    Workspace(tmp_path / "w")
    assert flywheel("cases", "-w", tmp_path / "w", "--status", "re-opened", "--json").stdout == "[]\n"
    assert "'nope'" in wrong("cases", "-w", tmp_path / "w", "--status", "nope")


def test_calibration_says_what_is_known_of_each_verifier(tmp_path: Path):
    workspace = judged(tmp_path / "w", {"text": (60, 60), "count": (3, 2), "color": (60, 60)})
    for name, passes, fails in (("text", (40, 0), (0, 40)), ("color", (25, 15), (2, 38))):
        blind(workspace, name, passes=passes, fails=fails)
    rows = {r["verifier"]: r for r in json.loads(flywheel("calibration", "-w", tmp_path / "w", "--json").stdout)}
    assert {k: r["state"] for k, r in rows.items()} == {
        "text": "trusted", "count": "not calibrated", "color": "not trusted",
    }  # fmt: skip
    assert rows["color"]["tnr"] == pytest.approx(38 / 53) and rows["count"]["tpr"] is None
    shown = flywheel("calibration", "-w", tmp_path / "w")
    assert "40 + 40" in shown.stdout and "not calibrated: people judged 0 of 20 passes" in shown.stderr
    Workspace(tmp_path / "empty")
    assert json.loads(flywheel("calibration", "-w", tmp_path / "empty", "--json").stdout) == []
