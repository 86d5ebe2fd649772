"""Shards of the pool, and the names of their score files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources.ingest import ingest
from curation.sources.pool import (
    READS_CAPTIONS,
    manifest,
    quarantined_at_ingest,
    rows_of,
    score_key,
    shards,
    take,
    uncaptioned,
)
from flywheel.core.workspace import Workspace
from tests.curation.corpus import textures, write_folder


def test_shards_come_oldest_batch_first_with_their_digest(workspace: Workspace, tmp_path: Path) -> None:
    assert shards(workspace) == quarantined_at_ingest(workspace) == []
    files = list(textures(3).items())
    ingest(workspace, write_folder(tmp_path / "b", dict(files[:2]) | {"broken.jpg": b""}))
    ingest(workspace, write_folder(tmp_path / "a", dict(files[2:])))
    ingest(workspace, write_folder(tmp_path / "c", {"empty.png": b""}))
    found = shards(workspace)
    assert [s.rows for s in found] == [2, 1], "a batch without a usable row has no shard"
    assert [s.sha256 for s in found] == [hashlib.sha256(s.path.read_bytes()).hexdigest() for s in found]
    assert [s.key.rpartition("-")[0] for s in found] == [b.name for b in workspace.batches()[:2]]
    reasons = {Path(r["source_uri"]).name: r["reason"] for r in quarantined_at_ingest(workspace)}
    assert reasons == {"broken.jpg": "zero bytes", "empty.png": "zero bytes"}
    assert sum(manifest(b)["quarantined"] for b in workspace.batches()) == 2


def test_a_caption_that_says_nothing_is_none(workspace: Workspace, tmp_path: Path) -> None:
    captions = dict(zip(textures(6), ["", "\n", "&nbsp;", "\u200b", "&amp;", "a"]))
    ingest(workspace, write_folder(tmp_path / "src", textures(6), captions))
    assert uncaptioned(workspace) == 4


def test_only_what_reads_captions_is_scored_again_when_captions_arrive() -> None:
    assert score_key("b-0", "", "text") == score_key("b-0", "c1", "pixels") == "b-0"
    assert {score_key("b-0", "c1", name) for name in READS_CAPTIONS} == {"b-0+c1"}


def test_rows_are_taken_by_number_from_the_groups_that_hold_them(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(23), "b": range(23)}), tmp_path / "t.parquet", row_group_size=5)
    rng = np.random.default_rng(0)
    with pq.ParquetFile(tmp_path / "t.parquet") as file:
        for _ in range(50):
            numbers = rng.integers(0, 23, rng.integers(1, 9)).tolist()
            assert take(file, numbers, ["b"]).to_pydict() == {"b": numbers}


def test_rows_are_found_by_their_source(workspace: Workspace, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", textures(3))
    ingest(workspace, folder)
    wanted = [str(folder / "picture-002.jpg"), str(folder / "picture-000.jpg"), "/elsewhere"]
    found = list(rows_of(workspace, wanted, "task"))
    assert [(r["source_uri"], r["task"]) for r in found] == [(wanted[1], "t2i"), (wanted[0], "t2i")]
    assert {r["shard"].key for r in found} == {shards(workspace)[0].key} and list(rows_of(workspace, [])) == []
