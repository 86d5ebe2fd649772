"""Verbs of single rounds: status, decisions, roll-back, and where things come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.flywheel.cli.command import flywheel, wrong
from tests.flywheel.rounds.verdicts import finished_rounds

BY = ("--by", "ada", "--why", "a test")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return finished_rounds(tmp_path / "w", "PROMOTE", "PROMOTE", "HOLD")


def test_decisions_put_checkpoints_in_service(workspace: Workspace) -> None:
    w = ("-w", workspace.root)
    held = json.loads(flywheel("round", "promote", 3, *BY, *w, "--json").stdout)
    assert (held["kind"], held["round"], held["incumbent"]) == ("promote", 3, "checkpoints/3")
    rejected = flywheel("round", "reject", 3, *BY, *w).stdout
    assert rejected.strip() == "reject of round 3 recorded; in service: checkpoints/2"
    assert "rollback of round 1 recorded; in service: checkpoints/1" in flywheel("round", "rollback", *BY, *w).stdout
    kinds = [(r["kind"], r["by"], r["why"]) for r in Ledger(workspace, "promotions").rows()]
    assert kinds[:3] == [(k, "ada", "a test") for k in ("promote", "reject", "rollback")]


def test_status_is_a_summary_for_people_and_a_record_for_programs(workspace: Workspace) -> None:
    state = json.loads(flywheel("round", "status", "-w", workspace.root, "--json").stdout)
    assert state["running"] is None and state["incumbent"] == "checkpoints/2"
    assert [r["verdict"] for r in state["rounds"]] == ["PROMOTE", "PROMOTE", "HOLD"]
    shown = flywheel("round", "status", "-w", workspace.root).stdout
    assert "incumbent  checkpoints/2" in shown and shown.count("PROMOTE") == 2
    assert not set('{}"') & set(shown)  # no JSON, and nothing of it


def test_wrong_usage(workspace: Workspace, tmp_path: Path) -> None:
    w = ("-w", workspace.root)
    assert "no verdict" in wrong("round", "promote", 9, *BY, *w)
    assert "not among the promoted" in wrong("round", "rollback", "--to", 3, *BY, *w)
    assert "--by" in wrong("round", "promote", 3, "--by", " ", "--why", "x", *w)
    assert "no workspace" in wrong("round", "status", "-w", tmp_path / "none")
    assert "no sample of the pool matches 'no-such-id'" in wrong("why", "no-such-id", *w)
