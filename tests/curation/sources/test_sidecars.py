"""Side-cars and metadata files of image folders."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources.ingest import ingest
from curation.sources.sidecars import Noted, OddNote, alike, attached, inside, metadata, side_car
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, write_folder
from tests.curation.sources.pooled import reasons, rows

PICTURES = [encoded(texture(n, 48, 40)) for n in range(6)]


def test_side_cars_belong_to_the_picture_of_their_name() -> None:
    names = ["a.jpg", "a.txt", "b.png", "b.png.json", "c.txt", "d/a.txt", "e.tar.jpg", "e.tar.txt", "f.jpg", "f.JSON"]
    beside = {"a.jpg": ["a.txt"], "b.png": ["b.png.json"], "e.tar.jpg": ["e.tar.txt"], "f.jpg": ["f.JSON"]}
    assert attached(names) == beside
    assert attached(["a.jpg", "b.png"]) == {}


def test_side_cars_in_another_unicode_form() -> None:
    one, other = "caf\u00e9", "cafe\u0301"
    assert attached([f"{one}.jpg", f"{other}.txt"]) == {f"{one}.jpg": [f"{other}.txt"]}
    both = [f"{name}.{suffix}" for name in (one, other) for suffix in ("jpg", "txt")]
    assert attached(both) == {f"{name}.jpg": [f"{name}.txt"] for name in (one, other)}


def test_side_cars_say() -> None:
    assert side_car({".txt": b"\xef\xbb\xbf a dog \n"}).captions == (("general", "a dog"),)
    assert side_car({".json": b'{"prompt": "p", "width": 3}', ".txt": b"t"}).captions == (("general", "p"),)
    assert side_car({".json": b'{"width": 3}', ".txt": b"t"}).captions == (("general", "t"),)
    assert side_car({".json": b'{"captions": [{"kind": "text", "text": "x"}]}'}).captions == (("text", "x"),)
    assert side_car({".json": b'["x", "y"]'}).captions == (("general", "x"), ("general", "y"))
    assert side_car({".json": b'"x"', ".txt": b"t"}).captions == (("general", "x"),)
    for bad in ({".txt": b"\xff"}, {".json": b"7"}, {".json": b"{"}, {".txt": b"x" * 2**21}):
        with pytest.raises(ValueError, match=r"."):
            side_car(bad)


def test_metadata_lines() -> None:
    text = (
        b'{"file_name": "a.png", "text": "one"}\n[]\n{"text": "x"}\n{\n\n{"file_name": "../b.png", "caption": "two"}\n'
    )
    found = list(metadata("train/metadata.jsonl", text))
    assert [(n.line, n.name) for n in found if isinstance(n, Noted)] == [(1, "train/a.png"), (6, "b.png")]
    assert [n.line.number for n in found if isinstance(n, OddNote)] == [2, 3, 4]
    csv = 'file_name,text\na.png,"two\nlines"\nb.png\nc.png,\xe9\n'.encode("latin-1")
    found = list(metadata("metadata.csv", csv))
    (noted,) = (n for n in found if isinstance(n, Noted))
    assert (noted.name, noted.note.captions) == ("a.png", (("general", "two\nlines"),))
    assert sorted(n.line.fault for n in found if isinstance(n, OddNote)) == [
        "a caption is not valid Unicode", "has more or fewer fields than the header",
    ]  # fmt: skip
    found = list(metadata("metadata.csv", "File_Name,Caption\na.png,é\n".encode("utf-16")))
    assert [(n.name, n.note.captions) for n in found if isinstance(n, Noted)] == [("a.png", (("general", "é"),))]
    for mark in (";", "\t"):
        (found,) = metadata("metadata.csv", f"file_name{mark}text\na.png{mark}one, two\n".encode())
        assert isinstance(found, Noted) and found.note.captions == (("general", "one, two"),)
    odd, noted = metadata("metadata.csv", b'file_name, "text"\na.png,"not closed\nb.png,behind it\n')
    assert isinstance(odd, OddNote) and odd.line.number == 2 and "not a CSV line" in odd.line.fault
    assert isinstance(noted, Noted) and noted.note.captions == (("general", "behind it"),)
    (noted,) = metadata("metadata.csv", "sep=;\r\nfile_name;text\r\na.png;one, two\r\n".encode("utf-16"))
    assert isinstance(noted, Noted) and noted.note.captions == (("general", "one, two"),)
    (noted,) = metadata("metadata.jsonl", b'{"file_name": "a.png", "caption": NaN, "text": "x", "score": Infinity}')
    assert isinstance(noted, Noted) and noted.note.captions == (("general", "x"),)
    (noted,) = metadata("metadata.jsonl", b'{"file_name": "a.png", "caption": null, "text": "x"}')
    assert isinstance(noted, Noted) and noted.note.captions == (("general", "x"),)
    pair = {"edited_image_file_name": "b.png", "original_image_file_name": "a.png", "edit_prompt": "mend"}
    (noted,) = metadata("metadata.jsonl", json.dumps(pair).encode())
    assert isinstance(noted, Noted) and noted.name == "b.png"
    assert (noted.note.references, noted.note.captions) == (("a.png",), (("instruction", "mend"),))


def test_all_captions_of_a_picture_are_kept(workspace: Workspace, tmp_path: Path) -> None:
    """captions.jsonl first, then metadata, then side-cars."""
    files = {"in/a.png": PICTURES[0], "in/a.txt": b"third", "in/metadata.csv": b"file_name,text\na.png,second\n"}
    source = write_folder(tmp_path / "s", files, {"in/a.png": "first"})
    assert ingest(workspace, source).new == 1
    assert [c["text"] for c in rows(workspace)[0]["captions"]] == ["first", "second", "third"]


def test_odd_side_cars_and_lines_cost_themselves(workspace: Workspace, tmp_path: Path) -> None:
    files = {f"{n}.png": PICTURES[n] for n in range(4)} | {
        "0.txt": b"caf\xe9", "1.json": b"{", "2.txt": b"fine", "3.json": b'{"references": ["9.png"], "caption": "x"}',
        "metadata.jsonl": b'{"file_name": "2.png", "text": "also"}\n{"file_name": "gone.png"}\n',
    }  # fmt: skip
    found = ingest(workspace, write_folder(tmp_path / "s", files))
    assert (found.found, found.new, found.quarantined) == (5, 1, 4)
    told = reasons(workspace)
    assert all("unreadable caption file" in told[f"{n}.png"] for n in (0, 1, 3)) and "'9.png'" in told["3.png"]
    assert told["metadata.jsonl#line=2"] == f"line 2: names 'gone.png', which is not in {tmp_path}/s"


def test_a_metadata_file_of_another_folder_is_refused_as_a_whole(workspace: Workspace, tmp_path: Path) -> None:
    lines = b"file_name,text\n" + b"".join(b"%d.jpg,x\n" % n for n in range(20))
    with pytest.raises(UsageError, match="20 of 20 lines cannot be used; line 2: names '0.jpg'"):
        ingest(workspace, write_folder(tmp_path / "s", {"a.png": PICTURES[0], "metadata.csv": lines}))


def test_names() -> None:
    assert inside("a/b", "../c.png") == "a/c.png" and inside("", "./c.png") == "c.png"
    assert inside("b", ".\\a.png") == inside("", "b\\.\\a.png") == "b/a.png"
    assert alike("cafe\u0301\\x.png") == alike("caf\u00e9/x.png")


def test_the_table_of_an_image_folder(tmp_path: Path) -> None:
    """As `datasets` and our own exports write it, with columns that name several files."""
    table = {
        "file_name": ["b.png", "c.png", None],
        "references_file_names": [["a.png", "z.png"], [], None],
        "mask_file_name": ["m.png", None, None],
        "text": ["mend", "plain", "x"],
        "license": ["CC0-1.0", None, None],
    }
    pq.write_table(pa.table(table), tmp_path / "t")
    edit, plain, odd = metadata("train/metadata.parquet", (tmp_path / "t").read_bytes())
    assert isinstance(edit, Noted) and (edit.line, edit.name, edit.note.mask) == (1, "train/b.png", "train/m.png")
    assert edit.note.references == ("train/a.png", "train/z.png")
    assert edit.note.captions == (("instruction", "mend"),) and edit.note.rights.license == "CC0-1.0"
    assert isinstance(plain, Noted) and (plain.name, plain.note.captions) == ("train/c.png", (("general", "plain"),))
    assert isinstance(odd, OddNote) and odd.line.number == 3
    (damaged,) = metadata("metadata.parquet", b"PAR1")
    assert isinstance(damaged, OddNote) and "not a readable Parquet file" in damaged.line.fault
