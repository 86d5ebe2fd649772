"""Maintenance: fewer files, the same rows, an export of the last round, and what is damaged is said."""

from __future__ import annotations

import json
from pathlib import Path

from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.operate.maintenance import maintain


def test_an_empty_workspace_has_nothing_to_maintain(tmp_path: Path) -> None:
    report = maintain(Workspace(tmp_path / "w"))
    assert (report["ledgers"], report["export"], report["sound"]) == ({}, None, True)


def test_ledgers_are_compacted_and_old_files_leave(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    ledger = Ledger(workspace, "rounds")
    for number in (1, 2, 3):
        ledger.append([{"round": number, "checkpoint": f"checkpoints/{number}", "result": "{}"}], key=f"{number}")
    kept = maintain(workspace)
    assert kept["ledgers"] == {"rounds": {"files": 3, "removed": 0}} and len(ledger.files()) == 1
    assert maintain(workspace, keep_hours=0)["ledgers"] == {
        "rounds": {"files": 0, "removed": 3},
        "exports": {"files": 0, "removed": 0},  # of the first call
    }
    assert [r["round"] for r in ledger.rows()] == [1, 2, 3]
    assert Path(kept["export"]).is_file() and "3" in Path(kept["export"]).name
    json.dumps(kept)


def test_damage_is_said(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    ledger = Ledger(workspace, "costs")
    ledger.append([{"cost_id": "a"}], key="a")
    (file,) = map(Path, ledger.files())
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert not maintain(workspace)["sound"]
