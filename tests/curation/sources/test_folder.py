"""Folders as sources."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from pathlib import Path

from curation.sources import open_source
from curation.sources.ingest import ingest
from flywheel.core.workspace import Workspace
from tests.curation.corpus import bomb, encoded, texture, textures, write_folder
from tests.curation.sources.pooled import reasons, rows


def test_folder_with_captions(workspace: Workspace, tmp_path: Path) -> None:
    files = {"a.png": encoded(texture(1)), "deep/b.png": encoded(texture(2)), ".hidden.png": b"x", ".d/c.png": b"x"}
    captions = {"a.png": "first", "deep/b.png": {"captions": [{"kind": "text", "text": "long"}]}}
    source = write_folder(tmp_path / "src", files, captions)
    ingested = ingest(workspace, source)
    assert (ingested.found, ingested.new, ingested.known, ingested.quarantined) == (2, 2, 0, 0)
    first, second = rows(workspace)
    assert first["caption"] == "first"
    assert first["captions"] == [{"kind": "general", "text": "first"}]
    assert second["captions"] == [{"kind": "text", "text": "long"}]
    assert first["source_uri"] == str(source / "a.png")
    assert first["sample_id"] == first["image_id"] == hashlib.sha256(files["a.png"]).hexdigest()
    assert (first["width"], first["height"], first["image"]) == (160, 120, files["a.png"])


def test_unusable_files_are_quarantined_with_their_reason(workspace: Workspace, tmp_path: Path) -> None:
    files = {
        "good.png": encoded(texture(1)),
        "empty.jpg": b"",
        "page.jpg": b"<html>404</html>",
        "notes.txt": b"hello",
        "bomb.png": bomb(),
    }
    source = write_folder(tmp_path / "src", files)
    (source / "loop").symlink_to(source)
    (source / "nowhere.jpg").symlink_to(tmp_path / "missing.jpg")
    os.mkfifo(source / "pipe.jpg")
    (source / os.fsdecode(b"bad-\xff.jpg")).write_bytes(files["good.png"])
    ingested = ingest(workspace, source)
    assert (ingested.found, ingested.new, ingested.quarantined) == (9, 1, 8)
    why = reasons(workspace)
    assert why["empty.jpg"] == "zero bytes"
    assert why["page.jpg"] == why["notes.txt"] == "not an image: no known image format"
    assert why["bomb.png"].startswith("too large")
    assert "not followed" in why["loop"]
    assert why["nowhere.jpg"].startswith("unreadable")
    assert why["pipe.jpg"] == "not a regular file"
    assert why["bad-\\xff.jpg"] == "file name is not UTF-8: rename it"


def test_one_file_may_be_a_sample_and_the_target_of_several_pairs(workspace: Workspace, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "src", {"a.png": encoded(texture(1)), "b.png": encoded(texture(2))})
    lines = [
        {"file": "b.png", "caption": "a picture"},
        {"file": "b.png", "caption": "blur it", "references": ["a.png"]},
        {"file": "b.png", "caption": "sharpen it", "references": ["a.png"]},
        {"file": "b.png", "caption": "blur it", "references": ["a.png"]},
    ]
    (source / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert ingest(workspace, source).new == 4  # a, b and two distinct pairs
    assert sorted(r["caption"] for r in rows(workspace)) == ["", "a picture", "blur it", "sharpen it"]


def test_a_file_that_changes_while_it_is_ingested(workspace: Workspace, tmp_path: Path) -> None:
    from curation.sources import BadInput

    source = write_folder(tmp_path / "src", textures(1))
    opened = open_source(source)
    listed = opened.inputs()
    (source / "picture-000.jpg").write_bytes(encoded(texture(5)))
    (content,) = opened.read(listed)
    assert isinstance(content, BadInput)
    assert "changed" in str(content)


def test_captions_files_of_folders_below_name_what_is_beside_them(workspace: Workspace, tmp_path: Path) -> None:
    files = {f"{part}/{n}.png": encoded(texture(n + 5 * len(part))) for part in ("train", "test2") for n in range(2)}
    lines = {name: json.dumps({"file": Path(name).name, "caption": name}) for name in files}
    told = {
        f"{part}/captions.jsonl": "\n".join(line for name, line in lines.items() if name.startswith(part)).encode()
        for part in ("train", "test2")
    }
    ingested = ingest(workspace, write_folder(tmp_path / "s", files | told))
    assert (ingested.new, ingested.quarantined) == (4, 0)
    assert all(row["source_uri"].endswith("/" + row["caption"]) and row["caption"] for row in rows(workspace))


def test_captions_files_of_folders_below_may_name_files_from_the_source_on(
    workspace: Workspace, tmp_path: Path
) -> None:
    line = json.dumps({"file": "train/0.png", "caption": "from the source on"}).encode()
    ingest(workspace, write_folder(tmp_path / "s", {"train/0.png": encoded(texture(1)), "train/captions.jsonl": line}))
    assert [row["caption"] for row in rows(workspace)] == ["from the source on"]


def test_names_that_look_like_parts_of_an_address(tmp_path: Path) -> None:
    files = {name: encoded(texture(n)) for n, name in enumerate(["a#line=3.png", "b::c.png", "d#1.png"])}
    source = open_source(write_folder(tmp_path / "s", files))
    inputs = source.inputs()
    assert len(source.narrowed(inputs).inputs()) == 3
    assert list(source.narrowed(inputs).read(inputs)) == [files[Path(i.uri).name] for i in inputs]


def test_names_that_differ_in_unicode_form_only(workspace: Workspace, tmp_path: Path) -> None:
    files = {unicodedata.normalize(form, "é.png"): encoded(texture(n)) for n, form in enumerate(("NFC", "NFD"))}
    write_folder(tmp_path / "s", files, {name: f"picture {n}" for n, name in enumerate(files)})
    ingest(workspace, tmp_path / "s")
    assert {row["image"]: row["caption"] for row in rows(workspace)} == {
        data: f"picture {n}" for n, data in enumerate(files.values())
    }
