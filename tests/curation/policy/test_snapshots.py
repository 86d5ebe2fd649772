"""Snapshots are differences by a prefix and compared."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from curation.policy.snapshots import diff, find, listed
from curation.run import curate
from flywheel.cli.main import app
from flywheel.core.errors import UsageError
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
    assert {s["snapshot"] for s in listed(workspace)} >= {a.snapshot, b.snapshot}
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
