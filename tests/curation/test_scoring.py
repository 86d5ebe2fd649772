"""Scoring on a real Ray: only what is missing, every row present, a bad row costs itself."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.ingest import ingest
from curation.scoring import pending, score
from flywheel.workspace import Workspace
from tests.curation.corpus import encoded, texture, textures, tree, write_folder

CRASHING = "tests.curation.crashing:Crashing"


def test_only_what_is_missing_is_computed(tmp_path: Path, ray_session: None) -> None:
    workspace = Workspace(tmp_path / "w")
    source = write_folder(tmp_path / "src", textures(3) | {"cut.jpg": encoded(texture(9), "JPEG")[:2000]})
    ingest(workspace, source)
    calls: list[tuple] = []
    scorers = {"header": {}, "pixels": {}}
    score(workspace, scorers, progress=lambda *call: calls.append(call))
    assert calls == [(1, 1, "shards scored")]
    first = tree(workspace.path("scores"))
    (pixels,) = workspace.path("scores").glob("pixels@*/*.parquet")
    rows = pq.read_table(pixels).to_pylist()
    assert [r["row"] for r in rows] == [0, 1, 2, 3]
    assert rows[0]["error"].startswith("truncated") and rows[0]["phash"] is None  # cut.jpg comes first
    assert all(r["error"] is None and r["phash"] is not None for r in rows[1:])

    write_folder(source, {"more.png": encoded(texture(50))})
    ingest(workspace, source)
    assert [(len(names), shard.rows) for shard, names in pending(workspace, scorers)] == [(2, 1)]
    score(workspace, scorers | {"text": {}})
    assert not pending(workspace, scorers | {"text": {}})
    assert first.items() <= tree(workspace.path("scores")).items()


def test_a_native_crash_costs_exactly_its_row(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.ingest.SHARD_ROWS", 3)
    workspace = Workspace(tmp_path / "w")
    captions = dict.fromkeys(textures(12), "fine")
    captions |= {"picture-001.jpg": "crash", "picture-003.jpg": "raise"}
    ingest(workspace, write_folder(tmp_path / "src", textures(12), captions))
    score(workspace, {"header": {}, CRASHING: {}})  # four shards, as many in flight as there may be
    tables = [pq.read_table(p) for p in sorted(workspace.path("scores").glob("crashing@1/*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    assert len(tables) == 4 and [r["length"] for r in rows] == [4, None, 4, None, *[4] * 8]
    assert rows[1]["error"] == "RuntimeError: crashed the scoring process"
    assert rows[3]["error"] == "ValueError: no such luck"
