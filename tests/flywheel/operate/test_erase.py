"""Erased pictures leave no byte, in whatever file; they never come back; an interrupted erasure is completed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from curation.decide.explain import explain
from curation.export.export import export_shards
from curation.export.request import FORMATS, request
from curation.policy.reader import load_policy
from curation.run import curate, scored
from curation.sources import pool
from curation.sources.ingest import ingest
from flywheel.catalog.database import export as export_tables
from flywheel.core.erased import REASON, require_finished, unfinished
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json, write_bytes, write_json
from flywheel.core.ledger import Ledger
from flywheel.core.storage import located
from flywheel.core.workspace import Workspace
from flywheel.operate import erase as module
from flywheel.operate.erase import erase
from flywheel.operate.fsck import fsck
from flywheel.signals import pinned
from flywheel.signals.suite import write_rows
from tests.curation.corpus import encoded, texture, write_folder

NAME = "picture-000.jpg"  # the reference of an edit pair
WHO = {"by": "ada", "why": "asked by its author"}


@pytest.fixture
def work(curated: SimpleNamespace, tmp_path: Path) -> SimpleNamespace:
    """A copy of the curated pool with a second snapshot, in which a picture is to be erased."""
    workspace = Workspace(shutil.copytree(curated.workspace.root, tmp_path / "w"))
    data = curated.files[NAME]
    return SimpleNamespace(
        workspace=workspace,
        source=curated.source,
        snapshot=curated.result.snapshot,
        data=data,
        image=hashlib.sha256(data).hexdigest(),
        root=tmp_path,
    )


def everything(root: Path) -> list[tuple[Path, bytes]]:
    return [(p, p.read_bytes()) for p in sorted(root.rglob("*")) if p.is_file()]


def cells(path: Path) -> set[str]:
    """SHA-256 of every binary cell, and every text, of a Parquet file."""
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, bytes):
            found.add(hashlib.sha256(value).hexdigest())
        elif isinstance(value, str):
            found.add(value)
        elif isinstance(value, dict):
            any(walk(v) for v in value.values())
        elif isinstance(value, list):
            any(walk(v) for v in value)

    table = pq.read_table(path)
    walk(table.select([n for n in table.column_names if n != "survivor"]).to_pylist())  # ids of tombstones stay there
    return found


def rows_of(workspace: Workspace) -> dict[str, tuple[str, int]]:
    return {
        uri: (shard.key, n)
        for shard in pool.shards(workspace)
        for n, uri in enumerate(pq.read_table(shard.path)["source_uri"].to_pylist())
    }


def shard_blobs(workspace: Workspace, sample: str) -> set[str]:
    """SHA-256 of the sample's pictures in all training shards."""
    paths = workspace.path("shards").rglob("*.parquet")
    rows = [r for p in paths for r in pq.read_table(p).to_pylist() if r["sample_id"] == sample]
    return {hashlib.sha256(r["image"]).hexdigest() for r in rows}


def test_no_byte_is_left_and_everything_else_is(work: SimpleNamespace) -> None:
    workspace = work.workspace
    before = rows_of(workspace)
    encodings = shard_blobs(workspace, work.image)
    assert encodings and fsck(workspace).findings == ()
    write_bytes(workspace.path("feedback", "pictures", "stray.jpg"), work.data)
    (erased,) = erase(workspace, [NAME], **WHO)
    pair = next(u for u in before if u.endswith("/edit.png"))
    assert erased.rows == 2 and rows_of(workspace).keys() == before.keys() - {pair, str(work.source / NAME)}
    for path, content in everything(workspace.root):
        assert work.data not in content, path
        if path.suffix == ".parquet" and "ledger" not in path.parts:
            assert not cells(path) & {work.image, *encodings}, path
    assert not workspace.path("feedback", "pictures", "stray.jpg").exists()
    report = fsck(workspace)
    assert report.findings == ()
    (row,) = Ledger(workspace, "erasures").rows()
    assert (row["image_id"], row["by"], row["why"]) == (work.image, "ada", "asked by its author")
    assert encodings <= set(row["blobs"]) and work.image in row["sample_ids"]
    assert erased.sources == (str(work.source / "edit.png"), str(work.source / NAME))  # the user's own files stay


def test_what_stays_keeps_its_scores_decisions_and_place(work: SimpleNamespace) -> None:
    workspace, last = work.workspace, sorted(rows_of(work.workspace))[-1]
    before = explain(workspace, work.snapshot, last)["rows"][0]
    erase(workspace, [work.image[:16]], **WHO)
    after = explain(workspace, work.snapshot, last)["rows"][0]
    moved = {"row", "shard"}
    assert {k: v for k, v in after.items() if k not in moved} == {k: v for k, v in before.items() if k not in moved}
    record = read_json(workspace.snapshot(work.snapshot))
    assert record["counts"]["input"] == sum(record["counts"][k] for k in ("admitted", "dropped", "quarantined"))
    decisions = pq.read_table(workspace.snapshot(work.snapshot, "decisions")).to_pylist()
    shards = {s.key: pq.read_table(s.path)["sample_id"].to_pylist() for s in pool.shards(workspace)}
    assert all(shards[d["shard"]][d["row"]] == d["sample_id"] for d in decisions)


def test_it_never_comes_back(work: SimpleNamespace, tmp_path: Path) -> None:
    workspace = work.workspace
    erase(workspace, [str(work.source / NAME)], **WHO)
    again = ingest(workspace, work.source)
    assert again.new == 0 and again.quarantined >= 2
    copies = tmp_path / "copies"
    copies.mkdir()
    (copies / "other-name.jpg").write_bytes(work.data)
    assert ingest(workspace, copies).quarantined == 1
    refused = {Path(r["source_uri"]).name: r["reason"] for r in pool.quarantined_at_ingest(workspace)}
    assert refused["other-name.jpg"] == refused[NAME] == REASON
    assert refused["edit.png"].endswith(REASON)  # the pair whose reference it was
    result = curate(workspace, load_policy("demo"))
    assert result.snapshot != work.snapshot
    assert result.input == result.admitted + result.dropped + result.quarantined
    assert fsck(workspace).findings == ()


@pytest.mark.parametrize("name", FORMATS)
def test_exports_made_here_are_written_again(work: SimpleNamespace, tmp_path: Path, name: str) -> None:
    workspace, folder = work.workspace, tmp_path / name
    wanted, manifest = request(workspace, format=name, snapshot=work.snapshot, stage="S1")
    before = export_shards(workspace, replace(wanted, part_rows=3), manifest, folder)
    sample = work.image.encode()
    tables = export_tables(workspace, tmp_path / "analysts.duckdb")
    encodings = shard_blobs(workspace, work.image)
    held = [p for p, content in everything(folder) if hashlib.sha256(content).hexdigest() in encodings]
    (erased,) = erase(workspace, [work.image], **WHO)
    assert set(erased.exports) == {str(folder), str(tables)} and not tables.exists()
    after = read_json(folder / "export.json")
    assert 0 < after["rows"] < before.rows
    assert not any(p.exists() and hashlib.sha256(p.read_bytes()).hexdigest() in encodings for p in held)
    for path, content in everything(folder):
        assert sample not in content, path
        if path.suffix == ".parquet":
            assert not cells(path) & {work.image, *encodings}
    assert fsck(workspace).findings == ()


def killed_after(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The process dies as this step has done its work."""
    target = module.erase_suite if name == "erase" else module
    step: Callable[..., Any] = getattr(target, name)

    def dies(*arguments: Any) -> Any:
        step(*arguments)
        raise KeyboardInterrupt

    dies.__name__ = name
    monkeypatch.setattr(target, name, dies)


STEPS = ("_bury", "_rewrite_tables", "_renumber_snapshots", "_drop_derived", "_relist_pool", "_relist_shards",
         "_relist_snapshots", "erase", "_drop_pictures", "_redact_ledgers", "_drop_copies", "_exports")  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_erasure_is_completed(work: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    workspace = work.workspace
    with monkeypatch.context() as patch:
        killed_after(patch, step)
        with pytest.raises(KeyboardInterrupt):
            erase(workspace, [NAME], **WHO)
    assert len(unfinished(workspace)) == 1 and not fsck(workspace).sound
    with pytest.raises(UsageError, match="an erasure was interrupted"):
        require_finished(workspace)
    (erased,) = erase(workspace, [], by="", why="")
    assert erased.images == (work.image,) and not unfinished(workspace)
    assert fsck(workspace).findings == ()
    assert len(Ledger(workspace, "erasures").rows()) == 1
    decisions = pq.read_table(workspace.snapshot(work.snapshot, "decisions")).to_pylist()
    shards = {s.key: pq.read_table(s.path)["sample_id"].to_pylist() for s in pool.shards(workspace)}
    assert all(shards[d["shard"]][d["row"]] == d["sample_id"] for d in decisions)


@pytest.mark.parametrize("file", range(3))
def test_killed_between_two_files_it_renumbers_each_once(
    work: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, file: int
) -> None:
    done = []

    def dies(path: Path, *arguments: Any) -> bool:
        if len(done) == 5 * file + 1:
            raise KeyboardInterrupt
        done.append(path)
        return rewrite(path, *arguments)

    rewrite = module.rewrite
    with monkeypatch.context() as patch:
        patch.setattr(module, "rewrite", dies)
        with pytest.raises(KeyboardInterrupt):
            erase(work.workspace, [NAME], **WHO)
    erase(work.workspace, [], by="", why="")
    assert fsck(work.workspace).findings == ()


def test_near_duplicates_are_told_and_go_when_asked(work: SimpleNamespace) -> None:
    (erased,) = erase(work.workspace, ["large.png"], **WHO)
    assert len(erased.near_duplicates) == 1 and erased.rows == 2  # its twin has the same bytes
    (erased,) = erase(work.workspace, ["red.png"], duplicates=True, **WHO)
    assert erased.near_duplicates == ()
    assert any(u.endswith("/large-near.jpg") for u in rows_of(work.workspace))


def test_duplicates_go_with_it_when_asked(work: SimpleNamespace) -> None:
    (erased,) = erase(work.workspace, ["large.png"], duplicates=True, **WHO)
    assert len(erased.images) == 2
    assert not any("/large" in u for u in rows_of(work.workspace))


@pytest.mark.parametrize(
    ("names", "fault"),
    [(["nowhere.png"], "no picture of the pool is meant by 'nowhere.png'"), ([], "name what to erase")],
)
def test_names_that_mean_nothing_change_nothing(work: SimpleNamespace, names: list[str], fault: str) -> None:
    before = everything(work.workspace.root)
    with pytest.raises(UsageError, match=fault):
        erase(work.workspace, names, **WHO)
    assert everything(work.workspace.root) == before
    with pytest.raises(UsageError, match="--by NAME --why TEXT"):
        erase(work.workspace, [NAME], by=" ", why="x")


def test_a_picture_can_be_refused_before_it_ever_came(work: SimpleNamespace, tmp_path: Path) -> None:
    data = work.data + b"\0"
    (erased,) = erase(work.workspace, [hashlib.sha256(data).hexdigest()], **WHO)
    assert erased.rows == 0
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.jpg").write_bytes(data)
    assert ingest(work.workspace, tmp_path / "new").quarantined == 1


def test_a_picture_of_the_suite_needs_force_and_leaves_a_record(work: SimpleNamespace) -> None:
    workspace = work.workspace
    folder = workspace.suite.parent
    write_bytes(folder / "references" / "r.jpg", work.data)
    write_bytes(folder / "references" / "other.png", (work.source / "sun.png").read_bytes())
    rows = [
        {"prompt_id": name, "prompt": name, "task": "ti2i", "references": [f"references/{reference}"], "checks": []}
        for name, reference in (("uses-it", "r.jpg"), ("other", "other.png"))
    ]
    write_rows(workspace.suite, rows)
    pinned.write_held_out(workspace, [work.image], [work.data, (work.source / "sun.png").read_bytes()])
    write_bytes(
        workspace.path("samples", "round-0001-candidate", "uses-it.png"), (work.source / "cat.png").read_bytes()
    )
    pinned.pin(workspace)
    before = everything(workspace.root)
    with pytest.raises(UsageError, match=r"the held-out suite shows .*\(prompts uses-it\).*--force"):
        erase(workspace, [NAME], **WHO)
    assert everything(workspace.root) == before
    (erased,) = erase(workspace, [NAME], force=True, **WHO)
    assert erased.prompts == ("uses-it",)
    assert [p.prompt_id for p in pinned.load_own(workspace)] == ["other"]
    held = pinned.held_out(workspace)
    assert held.ids == frozenset() and len(held.looks) == 1
    assert not list(workspace.path("samples").rglob("uses-it.png"))
    (entry,) = read_json(workspace.path("suite.json"))["replaced"]
    assert (entry["prompts"], entry["removed"]) == (["uses-it"], ["references/r.jpg"])
    assert entry["before"].keys() == {"suite.jsonl", "held_out.json"}
    assert fsck(workspace).findings == ()


def test_fsck_finds_what_is_left_by_content(work: SimpleNamespace) -> None:
    workspace = work.workspace
    shard = next(p for p in workspace.path("shards").rglob("*.parquet") if work.image in cells(p))
    kept = pq.read_table(shard)
    erase(workspace, [NAME], **WHO)
    pq.write_table(kept.rename_columns([f"x_{n}" for n in kept.column_names]), workspace.path("copy.parquet"))
    write_bytes(workspace.path("notes", "innocent.bin"), work.data)
    write_json(workspace.path("notes", "list.json"), {"best": work.image})
    found = {f.path: f.problem for f in fsck(workspace).findings}
    assert found.keys() == {"copy.parquet", "notes/innocent.bin", "notes/list.json"}
    assert "x_image" in found["copy.parquet"]


def test_captions_and_scores_of_later_steps_go_too(work: SimpleNamespace) -> None:
    from curation.captioning.written import set_folder, write_sidecar

    workspace = work.workspace
    (key,) = {k for u, (k, _) in rows_of(workspace).items() if u.endswith(NAME)}
    row = {"sample_id": work.image, "use": "add", "kind": "general", "model": "m", "prompt": "p", "caption": "secret"}
    write_sidecar(set_folder(workspace, "add", "general", "m", "p"), key, [row])
    with scored(workspace, load_policy("demo")):
        pass
    erase(workspace, [NAME], **WHO)
    assert not any("secret" in cells(p) for p in workspace.path("captions").rglob("*.parquet"))
    assert json.loads(json.dumps(fsck(workspace).as_dict()))["findings"] == []


def test_objects_of_sources_that_still_hold_it_are_named(s3: str, tmp_path: Path) -> None:
    workspace, bucket = Workspace(tmp_path / "w"), located(s3)
    for n, name in enumerate(("a#1.png", "b.png", "c.png")):
        bucket.fs.pipe_file(f"{s3}/in/{name}", encoded(texture(n)))
    bucket.fs.pipe_file(f"{s3}/in/b.png/x.txt", b"a prefix of the same name")
    ingest(workspace, f"{s3}/in/*.png")
    bucket.fs.rm_file(f"{s3}/in/b.png")
    (erased,) = erase(workspace, ["a#1.png", "b.png"], **WHO)
    assert (erased.rows, erased.sources) == (2, (f"{s3}/in/a#1.png",))


def test_files_of_sources_that_still_hold_it_are_named_whatever_their_names(tmp_path: Path) -> None:
    workspace, names = Workspace(tmp_path / "w"), ("a#1.png", "b::c.png")
    folder = write_folder(tmp_path / "s#2", {name: encoded(texture(n)) for n, name in enumerate(names)})
    ingest(workspace, folder)
    (erased,) = erase(workspace, [str(folder / name) for name in names], **WHO)
    assert sorted(erased.sources) == [str(folder / name) for name in names]
