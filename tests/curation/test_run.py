"""A pool curated end to end: every input ends where it belongs, and the shards are what the manifest says."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.policy.reader import load_policy
from curation.policy.what_if import basis, what_if
from curation.run import curate, funnel
from curation.shards.fit import fit
from curation.shards.layout import layouts
from curation.shards.plan import listed
from curation.sources.ingest import ingest
from flywheel.core.errors import UsageError
from flywheel.core.files import file_digest, read_json
from flywheel.core.schema import SHARD
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, textures, tree, write_folder
from tests.curation.world import by_file, table


def test_shards_are_what_the_manifest_says(curated: SimpleNamespace) -> None:
    manifest = read_json(Path(curated.result.manifest))
    folder = Path(curated.result.manifest).parent
    assert manifest["snapshot"] == curated.result.snapshot and manifest["policy"] == "demo"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")}
    assert {f["path"] for f in manifest["files"]} <= there == set(listed(folder)), "other snapshots list the others"
    buckets: dict[tuple[str, str], set[str]] = {}
    for file in manifest["files"]:
        path = folder / file["path"]
        assert (file_digest(path), path.stat().st_size) == (file["sha256"], file["bytes"])
        assert (file["width"], file["height"]) in layouts(file["bucket"])
        rows = pq.read_table(path)
        assert rows.schema.equals(SHARD) and rows.num_rows == file["rows"]
        for row in rows.to_pylist():
            pictures = [row["image"], *row["references"]]
            assert len(row["references"]) == file["references"] and row["task"] == file["task"]
            for data in pictures:
                with Image.open(io.BytesIO(data)) as picture:
                    assert picture.size == (file["width"], file["height"]) == (row["width"], row["height"])
            for stage in file["stages"]:
                buckets.setdefault((stage, row["sample_id"]), set()).add(file["bucket"])
    passed = {(r["stage"], r["sample_id"]) for r in table(curated, "stages") if r["passed"]}
    assert buckets.keys() == passed
    pairs = [f for f in manifest["files"] if f["task"] == "ti2i"]
    assert pairs and all(f["references"] == 2 for f in pairs)


def test_turned_pictures_are_upright_in_the_shards(curated: SimpleNamespace) -> None:
    sample = by_file(curated, "decisions")["turned.jpg"]["sample_id"]
    manifest = read_json(Path(curated.result.manifest))
    for file in manifest["files"]:
        rows = pq.read_table(Path(curated.result.manifest).parent / file["path"]).to_pylist()
        for row in (r for r in rows if r["sample_id"] == sample):
            assert file["width"] > file["height"]
            got = np.asarray(Image.open(io.BytesIO(row["image"])), np.int16)
            want = fit(encoded(texture(41)), file["width"], file["height"])
            assert np.abs(got - np.asarray(Image.open(io.BytesIO(want)), np.int16)).mean() < 4


def test_curating_again_does_nothing(curated: SimpleNamespace) -> None:
    before = {p: p.stat().st_mtime_ns for p in curated.workspace.root.rglob("*") if p.is_file()}
    assert curate(curated.workspace, load_policy("demo")) == curated.result
    assert {p: p.stat().st_mtime_ns for p in curated.workspace.root.rglob("*") if p.is_file()} == before


def test_what_if_reads_no_image(curated: SimpleNamespace) -> None:
    policy = load_policy("demo")
    assert funnel(curated.workspace, policy) == list(curated.result.funnel)
    shutil.copytree(curated.workspace.root, curated.workspace.root.parent / "blind")
    blind = Workspace(curated.workspace.root.parent / "blind")
    for shard in blind.path("pool").glob("*/0*.parquet"):  # the same pool, its pictures overwritten
        rows = pq.read_table(shard)
        field, nothing = rows.schema.field("image"), pa.array([b""] * rows.num_rows, pa.large_binary())
        pq.write_table(rows.set_column(rows.schema.get_field_index("image"), field, nothing), shard)
    strict = {(r["stage"], r["filter"]): r for r in funnel(blind, policy.replace("S1.resolution.min", 130))}
    assert strict["S1", "resolution"]["dropped"] > 5


def test_killed_while_scoring_and_while_sharding(tmp_path: Path, ray_session: None) -> None:
    source = write_folder(
        tmp_path / "src",
        {f"picture-{n:03d}.jpg": encoded(texture(n, 100, 100), "JPEG") for n in range(140)},
        {f"picture-{n:03d}.jpg": f"a picture of number {n}" for n in range(140)},
    )
    killed = Workspace(tmp_path / "killed")
    for note in ("shards scored", "shard files written"):
        command = [sys.executable, "-m", "tests.curation.killed", str(killed.root), str(source), "progress", note, "1"]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], check=False, timeout=120)
        assert done.returncode == -signal.SIGKILL
        assert not list(killed.path("snapshots").glob("*.json"))
    finished = {p: p.stat().st_mtime_ns for d in ("scores", "shards") for p in killed.path(d).rglob("[!.]*.parquet")}
    assert any("shards" in p.parts for p in finished)
    result = curate(killed, load_policy("demo"))
    assert {p: p.stat().st_mtime_ns for p in finished} == finished, "finished work was done again"

    undisturbed = Workspace(tmp_path / "whole")
    ingest(undisturbed, source)
    assert curate(undisturbed, load_policy("demo")).snapshot == result.snapshot
    killed.sweep()
    assert tree(killed.root) == tree(undisturbed.root)


def test_nothing_to_curate(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ingest a source first"):
        curate(Workspace(tmp_path / "w"), load_policy("demo"))


def test_only_unusable_inputs(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, write_folder(tmp_path / "src", {"a.jpg": b"", "b.jpg": b"text"}))
    result = curate(workspace, load_policy("demo"))
    assert (result.input, result.admitted, result.dropped, result.quarantined) == (2, 0, 0, 2)
    assert read_json(Path(result.manifest))["files"] == []


def test_real_photographs(tmp_path: Path, photos: Path, ray_session: None) -> None:
    workspace, source = Workspace(tmp_path / "w"), tmp_path / "photos"
    source.mkdir()
    rows = [json.loads(line) for line in (photos / "captions.jsonl").read_text().splitlines()][::4]
    (source / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        (source / row["file"]).symlink_to(photos / row["file"])
    assert ingest(workspace, source).new == len(rows) > 60
    result = curate(workspace, load_policy("qwen-image-2"))
    assert (result.input, result.quarantined) == (len(rows), 0)
    dropped = {r["filter"] for r in table(SimpleNamespace(workspace=workspace, result=result), "decisions")} - {None}
    assert dropped == {"resolution"}  # sound photographs are dropped for nothing but their size
    assert result.admitted > 0.85 * len(rows)


def test_a_folders_name_changes_no_decision(tmp_path: Path, ray_session: None) -> None:
    """DuckDB takes `key=value` folders for columns, and `*?[` for patterns: not in the path of a workspace."""
    pictures = textures(6)
    source = write_folder(tmp_path / "s", pictures, {name: f"a texture called {name}" for name in pictures})
    results = []
    for name in ("plain", "stream=ti2i/width=512", "Ünï x's #1 50% a=b [c]*?"):
        workspace = Workspace(tmp_path / name / "w")
        ingest(workspace, source)
        result = curate(workspace, load_policy("demo"))
        results.append((result.snapshot, result.admitted, result.dropped, result.quarantined))
        policy = load_policy("demo").replace("S1.resolution.min", 130)
        results[-1] += (what_if(workspace, basis(workspace, result.snapshot), policy)["admitted"]["after"],)
    assert results[0] == results[1] == results[2] and results[0][1] > 0
