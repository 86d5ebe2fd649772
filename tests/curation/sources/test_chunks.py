"""Chunks written by tasks are those that one process writes; what kills a task costs its own row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources import chunks, open_source
from curation.sources import ingest as module
from curation.sources.ingest import ingest
from curation.sources.layout import arranged
from curation.sources.mix import listed
from flywheel.core import cluster
from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck
from tests.curation.corpus import encoded, texture, tree, write_folder
from tests.curation.sources.killing import Killing
from tests.curation.sources.pooled import reasons, rows, write_tar


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small runs of small chunks, each in a process of its own kind, as on Ray."""
    monkeypatch.setattr(chunks, "FEW", 0)
    monkeypatch.setattr(chunks, "_RUN_ROWS", 5)
    monkeypatch.setattr(module, "SHARD_ROWS", 3)
    with cluster._processes(1, ""):
        yield


def _mixed(folder: Path) -> Path:
    """Pictures, an edit whose reference is in another chunk, faults, a tar, a zip of nothing, and Parquet."""
    files = {f"{n:02d}.png": encoded(texture(n, 40, 30)) for n in range(9)} | {"09.png": b"", "z.png": b"text"}
    captions = {"00.png": "first", "08.png": {"caption": "make it red", "references": ["00.png"]}}
    write_folder(folder, files, captions)
    write_tar(folder / "t.tar", {f"{n}.png": encoded(texture(20 + n, 40, 30)) for n in range(7)})
    images = [encoded(texture(40 + n, 40, 30)) for n in range(7)]
    pq.write_table(pa.table({"image": images, "caption": ["p"] * 7}), folder / "p.parquet", row_group_size=2)
    (folder / "broken.tar").write_bytes(b"no tar at all" * 100)
    return folder


def test_tasks_write_the_bytes_that_one_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    source = _mixed(tmp_path / "src")
    monkeypatch.setattr(module, "SHARD_ROWS", 3)
    alone, shared = Workspace(tmp_path / "alone"), Workspace(tmp_path / "shared")
    one = ingest(alone, source)
    request.getfixturevalue("tasks")
    assert ingest(shared, source) == one and (one.new, one.quarantined) == (23, 3)
    assert tree(shared.root) == tree(alone.root) and fsck(shared).sound
    pair = next(r for r in rows(shared) if r["task"] == "ti2i")
    assert pair["reference_ids"] == [next(r["image_id"] for r in rows(shared) if r["caption"] == "first")]
    assert ingest(shared, source).known == one.found and tree(shared.root) == tree(alone.root)


def test_an_input_that_kills_its_process_is_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: None
) -> None:
    files = {f"{n}.png": encoded(texture(n, 40, 30)) for n in range(7)} | {"crash.png": encoded(texture(9, 40, 30))}
    source = write_folder(tmp_path / "src", files)
    killing = Killing(str(source), arranged(listed(str(source))).pictures)
    monkeypatch.setattr(module, "open_source", lambda *_: killing)
    workspace = Workspace(tmp_path / "w")
    done = ingest(workspace, source)
    assert (done.found, done.new, done.quarantined) == (8, 7, 1)
    assert reasons(workspace) == {"crash.png": "crashed the process that reads it"}


def test_a_source_is_narrowed_to_what_a_task_reads(tmp_path: Path) -> None:
    source = open_source(_mixed(tmp_path / "src"))
    inputs = [i for i in source.inputs() if i.fault is None]
    for item in inputs:
        narrow = source.narrowed([item])
        assert next(narrow.read([item])) == next(source.read([item]))
        assert len(narrow.layout.pictures) + len(narrow.layout.containers) <= 1 + len(item.references)  # type: ignore[attr-defined]


@pytest.mark.parametrize("inputs, most", [(10, 64), (4096, 64), (8192, 128), (100_000, 1024), (10_000_000, 1024)])
def test_shards_grow_with_the_batch(inputs: int, most: int) -> None:
    cut = module._chunks(np.ones(inputs, np.int64))
    assert np.bincount(cut).max() == min(most, inputs) and (np.diff(cut) >= 0).all()
    heavy = module._chunks(np.full(10, module.SHARD_BYTES * 3 // 5, np.int64))
    assert heavy.tolist() == list(range(10))
    assert module._chunks(np.array([module.SHARD_BYTES * 2, 1, 1], np.int64)).tolist() == [0, 1, 1]
