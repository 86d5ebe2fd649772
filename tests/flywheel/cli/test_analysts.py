"""SQL on the command line."""

import json
from pathlib import Path

from flywheel.core.workspace import Workspace
from tests.flywheel.cli.command import flywheel, wrong


def test_sql_answers_on_an_empty_workspace_and_refuses_to_write(tmp_path: Path):
    Workspace(tmp_path / "w")
    out = flywheel("sql", "select count(*) as n from samples", "--workspace", tmp_path / "w", "--json")
    assert json.loads(out.stdout) == [{"n": 0}]
    assert "SELECT" in wrong("sql", "drop view samples", "--workspace", tmp_path / "w")
    assert "SELECT" in wrong("sql", f"copy (select 1) to '{tmp_path}/x.csv'", "--workspace", tmp_path / "w")
    assert not (tmp_path / "x.csv").exists()
    assert "no workspace" in wrong("sql", "select 1", "--workspace", tmp_path / "none")
