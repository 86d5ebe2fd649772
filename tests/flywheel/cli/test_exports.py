"""What leaves the workspace by the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel.cli.exports import _require_new
from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.curation.export.exporting import ROWS, SNAPSHOT, snapshot
from tests.flywheel.cli.command import flywheel, wrong


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = snapshot(tmp_path)
    counts = {"input": 500, "admitted": 450, "dropped": 50, "quarantined": 0}
    row = {"snapshot": SNAPSHOT, "policy": "mine", "manifest": f"shards/{SNAPSHOT}/manifest.json", **counts}
    Ledger(made, "snapshots").append([row], key="1")
    return made


def test_shards_with_counts_licences_and_how_to_load_them(workspace: Workspace, tmp_path: Path) -> None:
    asked = ("export", "shards", "--format", "parquet", "--output", tmp_path / "out", "-w", workspace.root)
    told = flywheel(*asked)
    assert told.returncode == 0, told.stderr
    assert f"{3 * ROWS} rows, " in told.stdout and " bytes in 1 parts" in told.stdout
    assert "import pyarrow.dataset" in told.stdout and "CC0-1.0" in told.stdout
    assert json.loads(flywheel(*asked, "--json").stdout)["written"] == 0
    fewer = flywheel(*asked[:4], "--captions", "knowledge", "--output", tmp_path / "k", "-w", workspace.root)
    assert f"{ROWS} rows have no caption of kind knowledge" in fewer.stderr
    assert "flywheel caption --kind knowledge" in fewer.stderr


def test_what_cannot_be_exported_is_a_sentence(workspace: Workspace, tmp_path: Path) -> None:
    asked = ("export", "shards", "--output", tmp_path / "out", "-w", workspace.root)
    assert "choose from S1, S2" in wrong(*asked, "--stage", "S7")
    assert "choose from 64" in wrong(*asked, "--bucket", "65")
    assert "no snapshot begins with 'ffff'" in wrong(*asked, "--snapshot", "ffff")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x")
    assert "holds other files" in wrong("export", "shards", "--output", tmp_path / "mine", "-w", workspace.root)


def test_tables_as_before(workspace: Workspace, tmp_path: Path) -> None:
    asked = ("export", "-w", workspace.root, "--output", tmp_path / "a.duckdb")
    done = flywheel(*asked)
    assert done.stdout.strip() == str(tmp_path / "a.duckdb"), done.stderr
    assert "already exists" in wrong(*asked)
    assert "pass --workspace W and --output FILE.duckdb" in wrong("export")
    assert "write the options behind `shards`" in wrong("export", "-w", workspace.root, "shards", "--output", "x")


def test_a_file_name_that_no_disk_takes_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose another name"):
        _require_new(tmp_path / ("x" * 300), "a file")
