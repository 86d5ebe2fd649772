"""A workspace's marker and places; a workspace of format 1 is opened, queried and continued."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dashboards.report import render
from flywheel.catalog.database import query
from flywheel.catalog.lineage import why
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json, write_bytes, write_json
from flywheel.core.records import RoundPlan
from flywheel.core.workspace import FORMAT, Workspace
from flywheel.operate.fsck import fsck
from flywheel.rounds.outlook import plan_next, status
from flywheel.rounds.promotion import decide, incumbent
from tests.flywheel.format_1 import downgrade
from tests.flywheel.micro import go_on


def test_a_workspace_is_created_opened_and_swept(tmp_path: Path):
    root = tmp_path / "w"
    with pytest.raises(UsageError, match="no workspace at .*create one with `flywheel run"):
        Workspace(root, create=False)
    assert not root.exists() and Workspace(root).format == FORMAT
    opened = Workspace(root, create=False)
    opened.upgrade()
    assert read_json(root / "workspace.json") == {"format": FORMAT}
    write_bytes(opened.path("pool", "b", "manifest.json"), b"{}")
    opened.path("pool", ".a.json.0.tmp").write_bytes(b"half")
    write_bytes(opened.path("checkpoints", "a", ".final.tmp", ".model.0.tmp"), b"half a file of half a checkpoint")
    assert opened.sweep() == 2 and opened.sweep() == 0
    assert not opened.path("checkpoints", "a", ".final.tmp").exists()
    assert sorted(p.name for p in root.rglob("[!.]*.json")) == ["manifest.json", "workspace.json"]


def test_what_cannot_be_opened_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--workspace is empty: pass a folder"):
        Workspace("")
    with pytest.raises(UsageError, match="cannot be made .*: pass another folder"):
        Workspace("/proc/none")
    with pytest.raises(UsageError, match="is a file: pass a folder"):
        Workspace(tmp_path / "file")
    with pytest.raises(UsageError, match=r"is not UTF-8: rename that folder"):
        Workspace(tmp_path / os.fsdecode(b"\xff") / "w")
    for prefix in ("50%20off", "[c]", "a*", "x//y", "_delta_log/w", "new\nline"):
        with pytest.raises(UsageError, match="which not all clients of S3 read alike: choose a prefix without"):
            Workspace(f"s3://bucket/{prefix}")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.png").write_text("")
    with pytest.raises(UsageError, match="not empty and not a workspace: pass a new or an empty folder"):
        Workspace(tmp_path / "full")
    root = Workspace(tmp_path / "w").root
    write_json(root / "workspace.json", {"format": FORMAT + 1})
    with pytest.raises(UsageError, match=f"has format {FORMAT + 1}, this version reads up to {FORMAT}: upgrade"):
        Workspace(root)
    for damaged in (b"{}", b"{", b"[]", b'{"format": null}'):
        write_bytes(root / "workspace.json", damaged)
        with pytest.raises(UsageError, match="cannot read the workspace marker"):
            Workspace(root)


def test_a_rounds_places(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    places, root = workspace.round(3), workspace.root
    assert (places.name, places.arm("control")) == ("round-0003", "round-0003-control")
    assert places.plan == root / "rounds" / "round-0003" / "plan.json"
    assert places.remedy_manifest == root / "remedies" / "round-0003" / "manifest.json"
    assert places.checkpoint("candidate") == root / "checkpoints" / "round-0003-candidate"
    assert workspace.snapshot("s") == root / "snapshots" / "s.json"
    assert workspace.snapshot("s", "funnel") == root / "snapshots" / "s" / "funnel.parquet"
    older = root / "shards" / "s" / "manifest.json"
    for path in (workspace.round(11).remedy_manifest, places.remedy_manifest, older, root / "shards" / "t.json"):
        write_bytes(path, b"{}")
    assert [p.name for p in workspace.remedies()] == ["round-0003", "round-0011"]
    assert [p.parent.name for p in workspace.shard_manifests()] == ["s", "shards", "round-0003", "round-0011"]
    assert (workspace.shard_manifest("s"), workspace.shard_manifest("t")) == (older, root / "shards" / "t.json")


def test_an_older_workspace_is_marked_and_its_old_marker_kept(tmp_path: Path):
    root = Workspace(tmp_path / "w").root
    write_json(root / "workspace.json", {"format": 1})
    workspace = Workspace(root)
    assert workspace.format == 1 and not (root / "workspace.format-1.json").exists()  # opening writes nothing
    workspace.upgrade()
    assert workspace.format == Workspace(root).format == FORMAT
    assert read_json(root / "workspace.format-1.json") == {"format": 1}


@pytest.fixture
def older(copied: Workspace) -> Path:
    """The micro run's workspace as version 0.1 wrote it. Its second round is promoted: the third keeps its remedies."""
    if incumbent(copied).round == 1:
        decide(copied, "promote", 2, by="ada", why="a test")
    downgrade(copied.root)
    return copied.root


def test_a_workspace_of_format_1_is_queried(older: Path):
    before = {p: p.read_bytes() for p in older.rglob("[!.]*.*") if p.is_file() and "derived" not in p.parts}
    workspace = Workspace(older)
    assert status(workspace)["next_round"] == 3 and status(workspace)["promoted"] == [1, 2]
    (sample,) = query(workspace, "select sample_id, capability from generated where outcome = 'admitted' limit 1")
    lineage = why(workspace, sample["sample_id"])
    assert any(s["manifest"].startswith("remedies/round-0002/") for s in lineage["shards"])
    assert lineage["remedies"][0]["capability"] == sample["capability"] and lineage["checkpoints"]
    assert [f for f in fsck(workspace).findings if f.severity != "note"] == []  # its files have no records of hashes
    assert "keeps what the model can do" in render(workspace)
    plan = plan_next(workspace, pin=False)["plan"]
    second = RoundPlan.read(older / "rounds" / "round-0002" / "plan.json")
    assert [(m["slice"], m["round"]) for m in plan["mix"] if "round" in m] == [(m.slice, 2) for m in second.requests]
    after = {p: p.read_bytes() for p in older.rglob("[!.]*.*") if p.is_file() and "derived" not in p.parts}
    assert after == before and Workspace(older).format == 1


def test_a_pinned_plan_marks_a_workspace_of_format_1(older: Path):
    assert plan_next(Workspace(older), pin=True)["pinned"]
    assert read_json(older / "workspace.json") == {"format": FORMAT}


def test_a_workspace_of_format_1_is_continued(older: Path, micro_world: Path, micro_run: tuple[Path, dict]):
    shards = {p: p.read_bytes() for kind in ("shards", "remedies") for p in (older / kind).rglob("*.parquet")}
    summary = go_on(micro_world, older, "--rounds", "3")
    assert [r["round"] for r in summary["rounds"]] == [1, 2, 3] and summary["snapshot"] == micro_run[1]["snapshot"]
    assert {k: summary["rounds"][0][k] for k in ("verdict", "targets")} == {"verdict": "PROMOTE", "targets": []}
    assert all(p.read_bytes() == content for p, content in shards.items())
    plan = RoundPlan.read(older / "rounds" / "round-0003" / "plan.json")
    assert {m.round for m in plan.mix} == {None, 2} and plan.requests  # kept remedies of format 1 beside new ones
    remedies = {number: (older / "remedies" / f"round-000{number}").glob("64/*.parquet") for number in (2, 3)}
    columns = {number: {n for p in paths for n in pq.read_schema(p).names} for number, paths in remedies.items()}
    assert "track" in columns[2] and "slice" not in columns[2] and "slice" in columns[3] and "track" not in columns[3]
    assert read_json(older / "workspace.json") == {"format": FORMAT}
    assert read_json(older / "workspace.format-1.json") == {"format": 1}
    assert fsck(Workspace(older)).sound


def test_a_copy_elsewhere_is_sound_and_goes_on(copied: Workspace, micro_world: Path, tmp_path: Path):
    """Copied, then renamed: preset and policy come along, and nothing is done again."""
    moved = copied.root.rename(tmp_path / "moved, O'Brien #2")
    workspace = Workspace(moved, create=False)
    assert fsck(workspace).findings == ()
    shards = {p: p.stat().st_mtime_ns for p in moved.rglob("[!.]*.parquet") if "ledger" not in p.parts}
    summary = go_on(micro_world, moved)
    assert [r["round"] for r in summary["rounds"]] == [1, 2] and summary["workspace"] == str(moved)
    assert {p: p.stat().st_mtime_ns for p in shards} == shards
    assert fsck(workspace).sound and incumbent(workspace) is not None
