"""A folder may be called anything: what a workspace in it records is read back, by Delta and by DuckDB."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from flywheel.catalog import database as catalog
from flywheel.core import lens
from flywheel.core.files import write_parquet
from flywheel.core.ledger import Ledger
from flywheel.core.storage import read_parquet
from flywheel.core.workspace import Workspace

NAMES = [
    "my work", "été", "写真", "a#b", "what?", "50% off", '"quoted"', "O'Brien", "{x}", "[c]*", "*", "a;b", "a:b",
    " lead", "$HOME", "~", "round=7", "step=y", "stream=ti2i", "Ünï x's #1 50% a=b [c]*",
    "50%20off", "%41", "back\\slash", "w\\hat?", "\\[c]*\\", "tab\tx", "new\nline", "\x01\x7f",
    "_delta_log", "trail ",
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
    other = tmp_path / name.replace("[c]", "c").replace("*", "x").replace("?", "!") / "w"  # what a pattern would find
    files = [place / "pool" / "1.parquet" for place in (other, workspace.root)]
    for n, path in enumerate(files):
        write_parquet(path, pa.table({"n": [n]}))
    with closing(lens.connect(workspace)) as con:
        assert con.execute(f"SELECT n FROM {read_parquet([str(files[1])])}").fetchall() == [(1,)]


def test_writers_of_a_ledger_lose_nothing_below_a_name_that_delta_decodes_twice(tmp_path: Path):
    workspace = Workspace(tmp_path / "50%20off" / "w")
    with ThreadPoolExecutor(4) as pool:
        done = [
            pool.submit(Ledger(workspace, "costs").append, [ROW | {"cost_id": str(n)}], key=str(n % 12))
            for n in range(24)
        ]
    assert sum(d.result() for d in done) == 12 == len(Ledger(workspace, "costs").rows())
    assert not list(tmp_path.glob("50 off*"))
