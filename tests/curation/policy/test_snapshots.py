"""Snapshots are differences by a prefix and compared."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from curation.policy.snapshots import _moved, diff, find, listed
from curation.run import curate
from flywheel.cli.main import app
from flywheel.core.errors import UsageError
from flywheel.core.files import write_json, write_parquet
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.curation.balanced import policy


def test_the_difference_of_snapshots(pictured: SimpleNamespace) -> None:
    workspace = pictured.workspace
    a = curate(workspace, policy(pictured.root, "", cap=50))
    b = curate(workspace, policy(pictured.root, "caps = { vehicle = 1 }", cap=50))
    differences = diff(workspace, a.snapshot[:8], b.snapshot)
    assert differences["policy"] == [{"line": "S6.balance.caps", "before": None, "after": [["vehicle", 1]]}]
    (moved,) = differences["samples"]
    assert (moved["before"], moved["after"], moved["samples"], len(moved["examples"])) == ("admitted", "balance", 3, 3)
    assert [c["after"] - c["before"] for c in differences["counts"]] == [0, -3, 3, 0]
    assert not differences["scorers"] and not differences["pool"] and differences["shards"]
    same = diff(workspace, a.snapshot, a.snapshot)
    assert not any(same[k] for k in ("policy", "scorers", "pool", "samples", "shards"))
    mine = [a.snapshot, b.snapshot]
    assert [s["snapshot"] for s in listed(workspace) if s["snapshot"] in mine] == mine
    for number, snapshot in enumerate(reversed(mine)):  # as a copy of the workspace may have them
        os.utime(workspace.snapshot(snapshot), (number, number))
    assert [s["snapshot"] for s in listed(workspace) if s["snapshot"] in mine] == mine
    assert find(workspace, a.snapshot)["files"].keys() == {
        "decisions.parquet", "stages.parquet", "funnel.parquet", "quarantine.parquet", "policy.json", "evaluation.json",
    }  # fmt: skip
    run = CliRunner()
    shown = run.invoke(app, ["snapshot", "list", "-w", str(workspace.root), "--json"])
    assert [s["admitted"] for s in json.loads(shown.stdout) if s["snapshot"] in (a.snapshot, b.snapshot)] == [16, 13]
    shown = run.invoke(app, ["snapshot", "diff", a.snapshot, b.snapshot, "-w", str(workspace.root), "--json"])
    assert json.loads(shown.stdout) == json.loads(json.dumps(differences))
    assert "balance" in run.invoke(app, ["snapshot", "diff", a.snapshot, b.snapshot, "-w", str(workspace.root)]).stdout
    with pytest.raises(UsageError, match="no snapshot begins with 'zz'"):
        diff(workspace, "zz", b.snapshot)
    with pytest.raises(UsageError, match="no snapshot begins with ''"):
        find(workspace, "")


def test_rows_of_one_address_and_quarantined_ones_move_on_their_own(tmp_path: Path) -> None:
    """Two edits of one picture, and an input that could not be read in one of the snapshots."""
    workspace = Workspace(tmp_path / "w")
    ends: dict[str, list[tuple[str, str, str | None]]] = {
        "before": [("e", "1", None), ("e", "2", "size"), ("u", "4", None)],
        "after": [("e", "1", None), ("e", "2", None), ("q", "3", None)],
    }
    for snapshot, rows in ends.items():
        columns = ("source_uri", "sample_id", "filter", "outcome")
        values = [(*row, "dropped" if row[2] else "admitted") for row in rows]
        table = pa.Table.from_pylist([dict(zip(columns, v)) for v in values])
        table = table.set_column(2, "filter", table["filter"].cast(pa.string()))
        write_parquet(workspace.snapshot(snapshot, "decisions"), table)
        unread = {"source_uri": ["q" if snapshot == "before" else "u"], "reason": ["cut short"]}
        write_parquet(workspace.snapshot(snapshot, "quarantine"), pa.table(unread))
    moved = [(r["before"], r["after"], r["examples"]) for r in _moved(workspace, "before", "after", 5)]
    expected = [("admitted", "quarantined", "4"), ("quarantined", "admitted", "3"), ("size", "admitted", "2")]
    assert moved == [(before, after, [example]) for before, after, example in expected]


def test_snapshots_are_listed_as_the_ledger_has_them_first(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    write_json(workspace.path("shards", "m.json"), {"files": [], "snapshot": "x"})
    for name in "abcd":  # written again in this order, as an erasure does
        record = {"snapshot": name, "policy": "p", "counts": {}, "manifest": "shards/m.json"}
        write_json(workspace.snapshot(name), record)
    for number, name in enumerate(("c", "a", "c", "b")):
        Ledger(workspace, "snapshots").append([{"snapshot": name, "policy": "p"}], key=f"snapshot/{number}")
    assert [s["snapshot"] for s in listed(workspace)] == ["c", "a", "b", "d"]
