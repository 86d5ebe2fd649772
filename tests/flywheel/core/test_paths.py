"""A folder may be called anything: what a workspace in it records is read back, by Delta and by DuckDB."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.catalog import database as catalog
from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace

NAMES = [
    "my work", "été", "写真", "a#b", "what?", "50% off", '"quoted"', "O'Brien", "{x}", "[c]*", "*", "a;b", "a:b",
    " lead", "$HOME", "~", "round=7", "step=y", "stream=ti2i", "Ünï x's #1 50% a=b [c]*",
]  # fmt: skip
ROW = {"round": 1, "step": "x", "cpu_seconds": 1.0, "gpu_seconds": 0.0, "wall_seconds": 1.0}


@pytest.mark.parametrize("name", NAMES)
def test_a_workspace_in_a_folder_of_any_name_is_read_back(tmp_path: Path, name: str):
    workspace = Workspace(tmp_path / name / "w")
    ledger = Ledger(workspace, "costs")
    for key in "ab":
        ledger.append([ROW | {"cost_id": key}], key=key)
    ledger.compact()
    ledger.vacuum(hours=0)
    assert [r["round"] for r in ledger.rows()] == [1, 1]
    rows = catalog.query(workspace, "select cost_id, round, step from costs order by all")
    assert rows == [{"cost_id": key, "round": 1, "step": "x"} for key in "ab"]
    assert len(catalog.ask(workspace, "select * from costs", rows=9, seconds=60).rows) == 2
    assert catalog.export(workspace, tmp_path / name / "x.duckdb").stat().st_size > 0


@pytest.mark.parametrize("name", ["50%20off", "back\\slash", "tab\tx", "new\nline"])
def test_a_name_that_delta_cannot_open_is_refused_at_once(tmp_path: Path, name: str):
    with pytest.raises(UsageError, match="rename the folder"):
        Workspace(tmp_path / name)
