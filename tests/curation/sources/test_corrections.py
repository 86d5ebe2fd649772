"""Captions that come later or are corrected are taken up, whatever the source; pictures are not read again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.captioning.written import with_written
from curation.run import curate
from curation.sources import pool
from curation.sources.folder import Folder
from curation.sources.ingest import ingest
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, tree, write_folder
from tests.curation.one_stage import policy, scored
from tests.curation.sources.pooled import write_tar

WORDS = '\n[S1.filters.token_length]\nscore = "text.token_length"\nmin = 1\n'


def captions(workspace: Workspace) -> dict[str, list[str]]:
    """Last part of the source URI → captions of the row as scoring and shards see them."""
    found: dict[str, list[str]] = {}
    for shard in pool.shards(workspace):
        rows = pq.read_table(readable(shard.path)).to_pylist()
        for row in with_written(rows, shard.captions):
            texts = [c["text"] for c in row["captions"]]
            assert row["caption"] == (texts[0] if texts else "")
            found[row["source_uri"].rpartition("/")[2]] = texts
    return found


def test_captions_come_later_and_are_corrected(tmp_path: Path, ray_session: None) -> None:
    files = {f"{n}.png": encoded(texture(n)) for n in range(3)}
    workspace, words = Workspace(tmp_path / "w"), policy(tmp_path, WORDS)
    ingest(workspace, write_folder(tmp_path / "src", files))
    first_snapshot = curate(scored(workspace, words), words)
    before = tree(workspace.path("pool"))
    first = {n: f"patches, picture {n}" for n in list(files)[:2]}
    again = ingest(workspace, write_folder(tmp_path / "src", {}, first))
    assert (again.found, again.new, again.known, again.captions, again.batch) == (3, 0, 3, 2, None)
    assert tree(workspace.path("pool")) == before
    result = curate(scored(workspace, words), words)
    assert result.snapshot != first_snapshot.snapshot
    shards = list(Path(result.manifest).parent.rglob("*.parquet"))
    assert {c for f in shards for c in pq.read_table(f)["caption"].to_pylist()} >= set(first.values())
    second = {"0.png": {"captions": [{"kind": "general", "text": "mended"}, {"kind": "text", "text": "and one more"}]}}
    assert ingest(workspace, write_folder(tmp_path / "src", {}, second)).captions == 1
    assert captions(workspace) == {
        "0.png": ["mended", "and one more"],
        "1.png": ["patches, picture 1.png"],
        "2.png": [],
    }
    assert ingest(workspace, tmp_path / "src").captions == 0
    assert ingest(workspace, write_folder(tmp_path / "src", {}, first)).captions == 1, "and back again"
    assert captions(workspace)["0.png"] == ["patches, picture 0.png"]


def test_known_pictures_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path / "w")
    folder = write_folder(tmp_path / "src", {"a.png": encoded(texture(1))}, {"a.png": "before"})
    ingest(workspace, folder)
    monkeypatch.setattr(Folder, "read", lambda *_: pytest.fail("read a picture"))
    assert ingest(workspace, write_folder(folder, {}, {"a.png": "after"})).captions == 1
    (folder / "captions.jsonl").unlink()
    assert ingest(workspace, folder).captions == 0, "a source without captions takes none away"
    assert captions(workspace) == {"a.png": ["after"]}


def test_corrected_archives_and_tables(tmp_path: Path) -> None:
    """They are new files, so their pictures are read and recognised."""
    pictures = [encoded(texture(n)) for n in range(2)]
    workspace = Workspace(tmp_path / "w")
    for number, text in enumerate(("before", "after")):
        members = {"a.png": pictures[0], "a.json": json.dumps({"caption": f"{text} a"}).encode(), "b.png": pictures[1]}
        write_tar(tmp_path / "s.tar", members)
        table = pa.table({"image": pictures, "caption": [f"{text} in a table", "the same"]})
        pq.write_table(table, tmp_path / "t.parquet")
        for name in ("s.tar", "t.parquet"):
            os.utime(tmp_path / name, ns=(number, 10**9 * (number + 1)))
            result = ingest(workspace, tmp_path / name)
            assert (result.new, result.known, result.captions) == ((2, 0, 0) if number == 0 else (0, 2, 1))
    assert captions(workspace) == {
        "s.tar::a.png": ["after a"],
        "s.tar::b.png": [],
        "t.parquet#0": ["after in a table"],
        "t.parquet#1": ["the same"],
    }


def test_a_replaced_picture_keeps_the_captions_of_the_old_one_apart(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    folder = write_folder(tmp_path / "src", {"a.png": encoded(texture(1))}, {"a.png": "the old one"})
    ingest(workspace, folder)
    write_folder(folder, {"a.png": encoded(texture(2, 200, 160))}, {"a.png": "the new one"})
    assert ingest(workspace, folder).new == 1
    assert ingest(workspace, write_folder(folder, {}, {"a.png": "the new one, mended"})).captions == 1
    (old, new) = [
        row["caption"]
        for shard in pool.shards(workspace)
        for row in with_written(pq.read_table(readable(shard.path)).to_pylist(), shard.captions)
    ]
    assert (old, new) == ("the old one", "the new one, mended")


def test_instructions_and_references_of_edit_pairs_make_new_pairs(tmp_path: Path) -> None:
    files = {f"{n}.png": encoded(texture(n)) for n in range(3)}
    workspace = Workspace(tmp_path / "w")
    pair = {"caption": "make it red", "references": ["0.png"]}
    ingest(workspace, write_folder(tmp_path / "src", files, {"1.png": pair}))
    again = ingest(workspace, write_folder(tmp_path / "src", {}, {"1.png": pair | {"caption": "make it blue"}}))
    assert (again.new, again.captions) == (1, 0)
    changed = {"1.png": pair | {"references": ["2.png"]}}
    assert [ingest(workspace, write_folder(tmp_path / "src", {}, changed)).new for _ in range(2)] == [1, 0]
