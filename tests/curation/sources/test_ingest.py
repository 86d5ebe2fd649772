"""Ingest: what enters the pool, what is quarantined, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from curation.sources import pool
from curation.sources.ingest import ingest, pair_id
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, textures, tree, turned, write_folder
from tests.curation.sources.pooled import reasons, rows, write_tar


def test_size_is_upright(workspace: Workspace, tmp_path: Path) -> None:
    ingest(workspace, write_folder(tmp_path / "src", {"t.jpg": turned(texture(1), 6)}))
    assert [(r["width"], r["height"]) for r in rows(workspace)] == [(120, 160)]


def test_edit_pairs(workspace: Workspace, tmp_path: Path) -> None:
    files = {f"{name}.png": encoded(texture(n)) for n, name in enumerate("abc")} | {"broken.png": b""}
    captions = {
        "a.png": "a picture",
        "b.png": {"caption": "make it red", "references": ["a.png"]},
        "c.png": {"caption": "mend it", "references": ["a.png", "broken.png"]},
    }
    ingested = ingest(workspace, write_folder(tmp_path / "src", files, captions))
    assert (ingested.new, ingested.quarantined) == (2, 2)  # the broken reference takes its pair with it
    plain, pair = rows(workspace)
    assert (plain["task"], pair["task"], pair["stream"]) == ("t2i", "ti2i", "ti2i")
    assert pair["reference_ids"] == [plain["image_id"]]
    assert pair["sample_id"] == pair_id(pair["image_id"], pair["reference_ids"], "make it red") != pair["image_id"]
    assert pair["captions"] == [{"kind": "instruction", "text": "make it red"}]
    assert reasons(workspace)["c.png"].endswith("is unusable: zero bytes")


def test_masks_of_edit_pairs(workspace: Workspace, tmp_path: Path) -> None:
    mask, small = encoded(Image.new("L", (160, 120), 255)), encoded(Image.new("L", (16, 12), 255))
    files = {f"{name}.png": encoded(texture(n)) for n, name in enumerate("abcd")}
    pair = {"caption": "mend it", "references": ["a.png"]}
    captions = {"b.png": pair | {"mask": "m.png"}, "c.png": pair | {"mask": "small.png"}, "d.png": pair}
    folder = write_folder(tmp_path / "src", files | {"m.png": mask, "small.png": small}, captions)
    assert ingest(workspace, folder).found == 4  # masks are no inputs
    masks = {Path(r["source_uri"]).name: r["mask"] for r in rows(workspace)}
    assert masks == {"a.png": None, "b.png": mask, "d.png": None}
    assert "is 16x12, its picture 160x120" in reasons(workspace)["c.png"]

    members = {n: d for n, d in files.items() if n < "c"} | {"m.png": mask}
    members["b.json"] = json.dumps(pair | {"mask": "m.png"}).encode()
    archived = Workspace(tmp_path / "tar")
    assert ingest(archived, write_tar(tmp_path / "s.tar", members)).found == 2
    assert {r["source_uri"].split("::")[1]: r["mask"] for r in rows(archived)} == {"a.png": None, "b.png": mask}
    (folder / "captions.jsonl").write_text('{"file": "a.png", "caption": "x", "mask": "m.png"}\n')
    with pytest.raises(UsageError, match='line 1: "mask" is not a file name, or there are no "references"'):
        ingest(Workspace(tmp_path / "v"), folder)


def test_ingesting_again_adds_nothing(workspace: Workspace, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src", textures(3) | {"bad.jpg": b""})
    ingest(workspace, source)
    before = tree(workspace.root)
    again = ingest(workspace, source)
    assert (again.found, again.new, again.known, again.quarantined, again.batch) == (4, 0, 4, 0, None)
    assert tree(workspace.root) == before
    os.utime(source / "picture-000.jpg", (1, 1))  # touched, same bytes
    touched = ingest(workspace, source)
    assert (touched.found, touched.new, touched.known, touched.quarantined) == (4, 0, 4, 0)
    assert len(rows(workspace)) == 3


def test_new_and_changed_files_make_a_new_batch(workspace: Workspace, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src", textures(2))
    first = ingest(workspace, source)
    write_folder(source, {"picture-000.jpg": encoded(texture(77), "JPEG"), "new.png": encoded(texture(78))})
    second = ingest(workspace, source)
    assert (second.found, second.new, second.known) == (3, 2, 1)
    assert first.batch != second.batch
    assert len(rows(workspace)) == 4


def test_an_exact_duplicate_is_a_row_of_its_own(workspace: Workspace, tmp_path: Path) -> None:
    data = encoded(texture(1))
    ingest(workspace, write_folder(tmp_path / "src", {"a.png": data, "b.png": data}))
    assert len({r["sample_id"] for r in rows(workspace)}) == 1
    assert len(rows(workspace)) == 2


def test_killed_at_any_rename_the_pool_is_the_same(tmp_path: Path) -> None:
    files = {f"picture-{n:03d}.jpg": encoded(texture(n, 48, 40), "JPEG") for n in range(150)} | {"x-bad.jpg": b""}
    source = write_folder(tmp_path / "src", files)
    undisturbed = Workspace(tmp_path / "whole")
    ingest(undisturbed, source)
    expected = tree(undisturbed.path("pool"))
    assert len(expected) == 6  # plan, three shards, quarantine, manifest
    for rename in (1, 3, 4, 5, 7):  # the plan, a shard, a chunk's quarantine, the last shard, the manifest
        killed = Workspace(tmp_path / f"killed-{rename}")
        command = [sys.executable, "-m", "tests.curation.killed", str(killed.root), str(source), "rename", str(rename)]
        done = subprocess.run(command, cwd=Path(__file__).parents[3], check=False)
        assert done.returncode == -signal.SIGKILL
        assert not pool.batches(killed)
        finished = {p: p.stat().st_mtime_ns for p in killed.path("pool").glob("*/0*.parquet")}
        ingest(killed, source)
        assert {p: p.stat().st_mtime_ns for p in finished} == finished, "finished shards were written again"
        killed.sweep()
        assert tree(killed.path("pool")) == expected
