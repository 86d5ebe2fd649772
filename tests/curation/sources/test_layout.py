"""What files are, by their names and, where these say nothing, by their first bytes."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources.files import find
from curation.sources.ingest import ingest
from curation.sources.layout import Layout, arranged, kind_of
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.curation.corpus import write_folder
from tests.curation.sources.kinds import tar_members, write_kinds, zipped
from tests.curation.sources.pooled import reasons, write_tar


def names(layout: Layout, kind: str) -> list[str]:
    return [f.name for f in getattr(layout, kind)]


def test_kinds_by_name() -> None:
    kinds = {"tar": "a.tar b.TAR.GZ c.tgz d.tar.zst", "parquet": "a.parquet b.pq", "zip": "a.zip",
             "list": "a.csv b.tsv.gz c.jsonl", "captions": "captions.jsonl x/metadata.csv metadata.jsonl",
             "picture": "a.jpg b.txt c.gz noname captions.txt"}  # fmt: skip
    assert {n: kind_of(n) for group in kinds.values() for n in group.split()} == {
        n: kind for kind, group in kinds.items() for n in group.split()
    }


def test_a_single_file_of_any_name(tmp_path: Path) -> None:
    write_tar(tmp_path / "tar", tar_members())
    (tmp_path / "zip").write_bytes(zipped({"a": b"x"}))
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "parquet")
    (tmp_path / "photo").write_bytes(b"\xff\xd8")
    for kind in ("tar", "zip", "parquet"):
        assert names(arranged(find(str(tmp_path / kind))), f"{kind}s") == [kind]
    assert names(arranged(find(str(tmp_path / "photo"))), "pictures") == ["photo"]
    assert tarfile.is_tarfile(tmp_path / "tar")


def test_what_only_describes_is_left_out(tmp_path: Path) -> None:
    layout = arranged(find(str(write_kinds(tmp_path)["tars"])))
    assert names(layout, "tars") == ["00000.tar", "00001.tar"] and layout.containers == layout.tars
    assert dict(layout.left_out) == {
        "00000.parquet": "describes 00000.tar", "00000_stats.json": "describes the data set",
        "00001.parquet": "describes 00001.tar", "00001_stats.json": "describes the data set",
    }  # fmt: skip


def test_lists_of_urls(tmp_path: Path) -> None:
    files = {"a.csv": b"url,text\nhttp://h/x,y\n", "b.csv": b"x,y\n1,2\n", "notes.txt": b"https://h/x\n", "p.png": b"x"}
    folder = write_folder(tmp_path / "s", files)
    pq.write_table(pa.table({"URL": ["http://h/x"], "hash": [b"12"]}), folder / "c.parquet")
    layout = arranged(find(str(folder)))
    assert names(layout, "lists") == ["a.csv", "c.parquet"]
    assert names(layout, "pictures") == ["b.csv", "notes.txt", "p.png"]  # beside pictures, a text is no list
    assert layout.pictures[0].fault == "a table without a column of URLs or pictures"
    assert names(arranged(find(str(folder / "notes.txt"))), "lists") == ["notes.txt"]
    assert names(arranged(find(str(folder / "b.csv"))), "pictures") == ["b.csv"]


def test_a_table_of_pictures_is_no_description(tmp_path: Path) -> None:
    """Though a tar or a folder has its name: what describes holds no pictures, and names none."""
    folder = write_folder(tmp_path / "s", {"a.tar": b"x", "b/p.png": b"x", "c/p.png": b"x", "d/p.png": b"x"})
    pq.write_table(pa.table({"image": [b"x"], "text": ["t"]}), folder / "a.parquet")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array([{"bytes": None, "path": "b/p.png"}], kind)}), folder / "b.parquet")
    pq.write_table(pa.table({"url": ["http://h/x"], "md5": [b"12"]}), folder / "c.parquet")
    (folder / "d.parquet").write_bytes(b"PAR1 damaged")
    layout = arranged(find(str(folder)))
    assert names(layout, "parquets") == ["a.parquet", "b.parquet", "d.parquet"]
    assert dict(layout.left_out) == {"c.parquet": "describes c/"}


def test_parquet_files_of_several_kinds_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 damaged")
    pq.write_table(pa.table({"url": ["http://h/x"]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "c.parquet")
    pq.write_table(pa.table({"file_name": ["x.png"], "text": ["t"]}), tmp_path / "metadata.parquet")
    layout = arranged(find(str(tmp_path)))
    assert names(layout, "lists") == ["b.parquet"]
    assert names(layout, "parquets") == ["a.parquet", "c.parquet"]
    assert names(layout, "pictures") == ["metadata.parquet"]


@pytest.mark.parametrize("name", ["x.txt", "x.csv", "x.jsonl", "x.tar", "x.tar.gz", "x.parquet", "x.zip", "x.jpg"])
def test_a_pipe_of_any_name_is_not_waited_for(workspace: Workspace, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    os.mkfifo(folder / name)
    try:
        ingest(workspace, folder)
    except UsageError as error:
        assert "not a regular file" in str(error)
    else:
        assert reasons(workspace) == {name: "not a regular file"}


def test_of_many_parquet_files_only_the_first_are_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.sources.layout._LOOKED_AT", 2)
    (tmp_path / "0.parquet").write_bytes(b"damaged")
    for n in range(1, 4):
        pq.write_table(pa.table({"url": ["http://h/x"]}), tmp_path / f"{n}.parquet")
    (tmp_path / "4.parquet").write_bytes(b"never opened")
    pq.write_table(pa.table({"file_name": ["x.png"]}), tmp_path / "metadata.parquet")
    layout = arranged(find(str(tmp_path)))
    assert names(layout, "lists") == [f"{n}.parquet" for n in range(1, 5)]
    assert names(layout, "parquets") == ["0.parquet"] and names(layout, "pictures") == ["metadata.parquet"]


def test_a_list_of_urls_may_be_called_captions(tmp_path: Path) -> None:
    url = b'{"url": "http://h/x", "caption": "y"}'
    files = {"captions.jsonl": url, "a/metadata.csv": b"url,text\nhttp://h/x,y\n", "p.png": b"x"}
    layout = arranged(find(str(write_folder(tmp_path / "s", files))))
    assert names(layout, "lists") == ["a/metadata.csv", "captions.jsonl"]
    told = {"captions.jsonl": url.replace(b"{", b'{"file": "p.png", '), "b/metadata.csv": b"File_Name,url\nx,y\n"}
    folder = write_folder(tmp_path / "t", told | {"p.png": b"x", "mine.jsonl": url})
    layout = arranged(find(str(folder)), folder / "mine.jsonl")
    assert names(layout, "pictures") == ["b/metadata.csv", "captions.jsonl", "mine.jsonl", "p.png"]
