"""WebDataset tars as sources."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from curation.sources import pool
from curation.sources.ingest import ingest
from curation.sources.layout import NESTED
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture
from tests.curation.sources.pooled import reasons, rows, write_tar


def test_webdataset_tar(workspace: Workspace, tmp_path: Path) -> None:
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    picture = encoded(texture(1))
    source = write_tar(
        tmp_path / "s.tar",
        {
            "./0001.png": picture,
            "./0001.txt": b"one\n",
            "0002.jpg": encoded(texture(2), "JPEG"),
            "0002.json": json.dumps({"captions": [{"kind": "general", "text": "two"}]}).encode(),
            "0003.png": picture,
            "0003.json": b"{broken",
            "0004.png": encoded(texture(4)),
            "0004.json": json.dumps({"caption": "turn it", "references": ["0002.jpg"]}).encode(),
            "0004.cls": b"7",
            "../escape.png": picture,
            "/absolute.png": picture,
            "lonely.txt": b"no image",
            "link.png": link,
            "page.jpg": b"<html>",
        },
    )
    ingested = ingest(workspace, source)
    got = {r["source_uri"].split("::")[1]: r for r in rows(workspace)}
    assert {n: r["caption"] for n, r in got.items()} == {"./0001.png": "one", "0002.jpg": "two", "0004.png": "turn it"}
    assert got["0004.png"]["reference_ids"] == [got["0002.jpg"]["image_id"]]
    bad = {r["source_uri"].split("::")[1]: r["reason"] for r in pool.quarantined_at_ingest(workspace)}
    assert set(bad) == {"0003.png", "../escape.png", "/absolute.png", "lonely.txt", "link.png", "page.jpg"}
    assert "path traversal" in bad["../escape.png"] and "path traversal" in bad["/absolute.png"]
    assert "link" in bad["link.png"]
    assert "caption" in bad["0003.png"]
    assert ingested.found == ingested.new + ingested.quarantined == 9
    assert ingest(workspace, source).known == 9


def test_a_damaged_tar_keeps_what_can_be_read(workspace: Workspace, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {f"{n}.png": encoded(texture(n)) for n in range(4)})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    ingested = ingest(workspace, path)
    assert ingested.new >= 1
    assert ingested.quarantined >= 1
    (tmp_path / "t.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(UsageError, match="not a readable tar"):
        ingest(workspace, tmp_path / "t.tar")


def header(name: str, size: int, kind: bytes) -> bytes:
    """A tar header; a negative size is written as GNU tar writes large numbers."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, max(0, size)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size < 0:
        block[124:136] = b"\xff" * 4 + size.to_bytes(8, "big", signed=True)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "content",
    [
        *(header("x.png", -512 * n, kind) for kind in (tarfile.REGTYPE, b"L", b"x", b"g", b"S", b"Z") for n in (1, 3)),
        header("x", 200_512, tarfile.XHDTYPE) + b"1" * 200_704,
        header("x", 2 << 20, tarfile.XHDTYPE) + b"1 a=b\n" * 350_000 + bytes(512 - 350_000 * 6 % 512),
        header("x", 5, b"L") + b"name\0" + bytes(507),
        b"".join(header("x", 5, b"L") + b"name\0" + bytes(507) for _ in range(3000)),
    ],
    ids=range(16),
)
def test_headers_that_older_versions_of_python_loop_on(tmp_path: Path, content: bytes) -> None:
    """Such a member costs itself; it takes no time, and what stands before it is read."""
    write_tar(tmp_path / "s.tar", {"a.png": encoded(texture(1))})
    whole = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[: whole.rindex(b"IEND") // 512 * 512 + 1024] + content + bytes(1024))
    script = """
import signal, sys
signal.alarm(20)
from pathlib import Path
from curation.sources import open_source
print([i.uri.rpartition("::")[2] for i in open_source(Path(sys.argv[1])).inputs() if not i.fault])
"""
    out = subprocess.run([sys.executable, "-c", script, str(tmp_path / "s.tar")], capture_output=True, text=True)
    assert out.returncode == 0 and out.stdout.strip() == "['a.png']", out.stderr[-2000:]


def test_captions_of_names_with_dots_and_other_suffixes(workspace: Workspace, tmp_path: Path) -> None:
    names = ("my.photo", "my.other", "plain", "b.v2", "caf\u00e9")
    pictures = {f"{name}.png": encoded(texture(n)) for n, name in enumerate(names)}
    texts = {
        "cafe\u0301.txt": b"u",
        "my.photo.txt": b"p",
        "my.other.json": b'{"caption": "o"}',
        "plain.caption": b"c",
        "b.txt": b"b",
    }
    fields = {"my.photo.meta.json": b"{}", "plain.ocr.txt": b"words", "plain.npy": b"0", "plain.mask.png": b"m"}
    lost = {"nobody.x.txt": b"alone"}
    source = write_tar(tmp_path / "s.tar", pictures | texts | fields | lost)
    found = ingest(workspace, source)
    assert {r["source_uri"].partition("::")[2][:-4]: r["caption"] for r in rows(workspace)} == {
        "my.photo": "p", "my.other": "o", "plain": "c", "b.v2": "b", "caf\u00e9": "u",
    }  # fmt: skip
    assert reasons(workspace) == {"s.tar::nobody.x.txt": "caption without an image"}
    assert found.notes == ("s.tar: fields that are not read: .npy, .mask.png, .photo.meta.json, .ocr.txt",)


def test_pictures_and_captions_as_named_fields(workspace: Workspace, tmp_path: Path) -> None:
    picture = {"a.image.png": encoded(texture(1)), "a.caption.txt": b"c", "a.mask.png": encoded(texture(2))}
    both = {"b.target_image.png": encoded(texture(3)), "b.target_image.txt": b"own", "b.text.txt": b"field"}
    found = ingest(workspace, write_tar(tmp_path / "s.tar", picture | both | {"my.photo.png": encoded(texture(4))}))
    got = {r["source_uri"].partition("::")[2]: r["caption"] for r in rows(workspace)}
    assert got == {"a.image.png": "c", "b.target_image.png": "own", "my.photo.png": ""}
    assert not reasons(workspace) and found.notes == ("s.tar: fields that are not read: .mask.png",)


def test_a_caption_that_stands_twice_leaves_an_entry(workspace: Workspace, tmp_path: Path) -> None:
    data = b""
    for text in (b"first", b"second", b"second"):
        part = write_tar(tmp_path / "part.tar", {"a.txt": text}).read_bytes()
        data += part[:1024]
    (tmp_path / "s.tar").write_bytes(
        data + write_tar(tmp_path / "part.tar", {"a.png": encoded(texture(1))}).read_bytes()
    )
    assert ingest(workspace, tmp_path / "s.tar").new == 1
    assert rows(workspace)[0]["caption"] == "second"
    assert [why for why in reasons(workspace).values() if "same name" in why] == [
        "a later member of the archive has the same name"
    ]


def test_members_that_begin_with_a_dot_and_slash_name_each_other(workspace: Workspace, tmp_path: Path) -> None:
    """As `tar cf x.tar .` writes them; also in a folder whose name holds the separator of addresses."""
    folder = tmp_path / "a::b"
    folder.mkdir()
    size = (48, 40)
    members = {
        "./d/1.png": encoded(texture(1, *size)),
        "./d/1.json": json.dumps({"caption": "turn it", "references": ["./2.png"], "mask": "m.mask.png"}).encode(),
        "./d/2.png": encoded(texture(2, *size)),
        "./d/m.mask.png": encoded(texture(3, *size)),
    }
    source = write_tar(folder / "s.tar", members)
    ingested = ingest(workspace, source)
    assert (ingested.new, ingested.quarantined) == (2, 0)
    pair = next(r for r in rows(workspace) if r["task"] == "ti2i")
    assert pair["mask"] == members["./d/m.mask.png"] and pair["source_uri"] == f"{source}::./d/1.png"


def test_archives_inside_an_archive_are_counted(workspace: Workspace, tmp_path: Path) -> None:
    members = {"1.png": encoded(texture(1)), "1.zip": b"a field", "00001.tar.gz": b"x", "sub/b.parquet": b"x"}
    ingested = ingest(workspace, write_tar(tmp_path / "s.tar", members))
    assert (ingested.new, ingested.quarantined) == (1, 2)
    assert set(reasons(workspace).values()) == {NESTED}
    assert "s.tar: fields that are not read: .zip" in ingested.notes


def test_a_picture_with_a_caption_of_its_own_is_no_field(workspace: Workspace, tmp_path: Path) -> None:
    members = {
        f"{name}.png": encoded(texture(n, 48, 40))
        for n, name in enumerate(("a", "a.1", "a.2 of 3", "a.mask", "a.depth"))
    }
    told = {"a.txt": b"a", "a.1.txt": b"a.1", "a.2 of 3.caption": b"a.2 of 3", "a.depth.json": b'{"unit": "m"}'}
    ingested = ingest(workspace, write_tar(tmp_path / "s.tar", members | told))
    assert (ingested.new, ingested.quarantined) == (3, 0)
    assert all(row["source_uri"].endswith(f"::{row['caption']}.png") for row in rows(workspace))
    assert "s.tar: fields that are not read: .mask.png, .depth.png, .depth.json" in ingested.notes
