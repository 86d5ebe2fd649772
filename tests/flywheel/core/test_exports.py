"""Where exports were made."""

from __future__ import annotations

import socket
from pathlib import Path

from flywheel.core.exports import SHARDS, TABLES, remember, remembered
from flywheel.core.workspace import Workspace


def test_each_place_is_remembered_once(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    for _ in range(2):
        remember(workspace, SHARDS, tmp_path / "out", {"format": "hf"})
    remember(workspace, SHARDS, tmp_path / "out", {"format": "mds"})
    remember(workspace, TABLES, workspace.path("exports", "x.duckdb"), {})
    assert remembered(workspace, SHARDS) == [(tmp_path / "out", socket.gethostname())]
    moved = Workspace(workspace.root.rename(tmp_path / "moved"))
    assert remembered(moved, TABLES) == [(moved.path("exports", "x.duckdb"), socket.gethostname())]
