"""Synthetic sources from job to shard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.policy.reader import load_policy
from curation.run import curate
from curation.sources import pool
from curation.sources.ingest import ingest
from curation.synthesis import source as synthetic
from curation.synthesis.pictures import in_folder, in_pool, shuffled
from curation.synthesis.source import EditJob, TextJob, write_source
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, tree, write_folder
from tests.curation.synthesis.edits import pixels

JOB = TextJob("comic", ("latin",), 0, 384, 100)


def test_a_source_is_the_same_however_it_came_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_PART", 2)
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    summary = write_source(whole, JOB, 3)
    assert summary.samples == 3 and len(list(whole.glob("*.png"))) == 3
    write_source(grown, JOB, 1)
    (grown / ".parts" / "000000.json").unlink()  # as if killed before the part was finished
    write_source(grown, JOB, 3)
    assert tree(grown) == tree(whole)
    rows = [json.loads(line) for line in (whole / "captions.jsonl").read_text().splitlines()]
    assert all(r["stream"] == "synthetic" and r["captions"][0]["kind"] == "text" for r in rows)
    workspace = Workspace(tmp_path / "w")
    assert ingest(workspace, whole).new == 3
    (shard,) = pool.shards(workspace)
    assert set(pq.read_table(shard.path)["stream"].to_pylist()) == {"synthetic"}


def test_a_source_refuses_what_it_cannot_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "full", {"a.png": b""})
    with pytest.raises(UsageError, match="is not empty"):
        write_source(tmp_path / "full", JOB, 1)
    monkeypatch.setattr(synthetic, "_PART", 1)
    write_source(tmp_path / "one", JOB, 1)
    with pytest.raises(UsageError, match="other settings"):
        write_source(tmp_path / "one", TextJob("comic", ("latin",), 1, 384, 100), 1)
    with pytest.raises(UsageError, match="need photographs"):
        write_source(tmp_path / "two", TextJob("scene", ("latin",), 1, 384, 100), 1)
    monkeypatch.setattr(synthetic, "_PATIENCE", 3)
    flat = write_folder(tmp_path / "flat", {f"{n}.png": encoded(Image.new("RGB", (64, 64))) for n in range(2)})
    with pytest.raises(UsageError, match="4 of 4 candidates are refused, mostly: no subject"):
        write_source(tmp_path / "three", EditJob(("recolour",), 0), 1, pictures=in_folder(flat))


def test_edit_pairs_and_their_masks_reach_the_shards(
    tmp_path: Path, photographs: tuple[bytes, bytes], ray_session: None
) -> None:
    flower, temple = photographs
    photos = write_folder(
        tmp_path / "photos",
        {"flower.jpg": flower, "temple.jpg": temple},
        {"flower.jpg": "a photo of a dahlia", "temple.jpg": "a photo of a temple by a lake"},
    )
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, photos)
    pictures = shuffled(in_pool(workspace, None), "0")
    assert [p.read() for p in sorted(pictures, key=lambda p: p.row)] == [flower, temple]
    summary = write_source(tmp_path / "edits", EditJob(("recolour", "tone"), 0), 4, pictures=pictures)
    assert summary.samples == 4
    ingested = ingest(workspace, tmp_path / "edits")
    rows = [json.loads(line) for line in (tmp_path / "edits" / "captions.jsonl").read_text().splitlines()]
    masks = {r["mask"] for r in rows if "mask" in r}
    assert masks and ingested.quarantined == 0 and ingested.found == len({r["file"] for r in rows}) == 4
    result = curate(workspace, load_policy("demo"))
    shown = []
    for file in read_json(Path(result.manifest))["files"]:
        shown += pq.read_table(Path(result.manifest).parent / file["path"]).to_pylist()
    pairs = [r for r in shown if r["task"] == "ti2i" and r["mask"]]
    assert pairs
    for row in pairs:
        mask = pixels(row["mask"])
        change = np.abs(pixels(row["image"]) - pixels(row["references"][0])).max(axis=2)
        assert mask.shape == change.shape and change[mask == 0].max(initial=0) == 0
