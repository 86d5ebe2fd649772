"""WebDataset tars as sources."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from curation.sources import pool
from curation.sources.ingest import ingest
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


def test_an_archive_cut_between_members_says_so(workspace: Workspace, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {f"{n}.png": encoded(texture(n)) for n in range(3)})
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1].offset
    assert ingest(workspace, path).quarantined == 0
    path.write_bytes(path.read_bytes()[:last])
    found = ingest(Workspace(tmp_path / "cut"), path)
    assert (found.new, found.quarantined) == (2, 1)
    assert "end marker" in next(iter(reasons(Workspace(tmp_path / "cut")).values()))


def _places(path: Path) -> dict[str, tuple[int, int]]:
    """Offset of each member's header, and of what follows its content."""
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        return {m.name: (m.offset, m.offset_data + -(-m.size // 512) * 512) for m in members}


def _zeroed(path: Path, start: int, end: int) -> Path:
    data = bytearray(path.read_bytes())
    data[start:end] = bytes(end - start)
    path.write_bytes(bytes(data))
    return path


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    members = {f"{n}.{e}": encoded(texture(n)) if e == "png" else b"words" for n in range(4) for e in ("png", "txt")}
    return write_tar(tmp_path / "captioned.tar", members)


@pytest.mark.parametrize(
    ("first", "last"),
    [("1.png", "1.txt"), ("1.png", "2.txt"), ("0.txt", "1.png"), ("2.png", "3.txt"), ("0.png", "2.txt")],
)
def test_zeros_over_whole_members_leave_one_entry(captioned: Path, workspace: Workspace, first: str, last: str) -> None:
    """Headers and contents: a tar reader sees the end of the archive, or a longer one, and says nothing."""
    places = _places(captioned)
    assert places["3.txt"][1] - places["2.png"][0] > 10_752  # more than a writer fills up
    _zeroed(captioned, places[first][0], places[last][1])
    found = ingest(workspace, captioned)
    lost = sum(1 for n in range(4) if places[first][0] <= places[f"{n}.png"][0] < places[last][1])
    assert found.new == 4 - lost and found.found == found.new + found.quarantined
    assert sum("are zero" in why for why in reasons(workspace).values()) == 1


def test_zeros_over_a_caption_leave_an_entry(captioned: Path, workspace: Workspace) -> None:
    """As long as an end marker: but this archive's writer fills up its end."""
    start, end = _places(captioned)["1.txt"]
    assert end - start == 1024
    found = ingest(workspace, _zeroed(captioned, start, end))
    assert (found.new, found.quarantined) == (4, 1) and "are zero" in next(iter(reasons(workspace).values()))


@pytest.mark.parametrize("filled", [True, False])
def test_joined_archives_have_no_gaps(tmp_path: Path, workspace: Workspace, filled: bool) -> None:
    """With ends filled up to the record, and with bare ones, as some writers leave them."""
    joined = b""
    for n in range(4):
        part = write_tar(tmp_path / "part.tar", {f"{n}.png": encoded(texture(n)), f"{n}.txt": b"words"})
        joined += part.read_bytes() if filled else part.read_bytes()[: _places(part)[f"{n}.txt"][1] + 1024]
    (tmp_path / "joined.tar").write_bytes(joined)
    found = ingest(workspace, tmp_path / "joined.tar")
    assert (found.new, found.quarantined) == (4, 0)


def test_a_header_for_all_members_is_no_loss(tmp_path: Path, workspace: Workspace) -> None:
    """As `git archive` writes one, and a folder and an unknown kind of member."""
    path, picture = tmp_path / "s.tar", encoded(texture(1))
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "f" * 40}) as archive:
        for name, kind, content in (
            ("a", tarfile.DIRTYPE, b""), ("a/b.png", tarfile.REGTYPE, picture), ("odd", b"Z", b"12"),
            ("c.png", tarfile.REGTYPE, encoded(texture(2))),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            archive.addfile(info, io.BytesIO(content))
    found = ingest(workspace, path)
    assert (found.new, found.quarantined) == (2, 1), reasons(workspace)
    assert "special file" in reasons(workspace)["s.tar::odd"]


@pytest.mark.parametrize("factor", [128, 256, 2048])
def test_records_of_another_length_are_no_loss(captioned: Path, workspace: Workspace, factor: int) -> None:
    """As `tar -b` fills up its end."""
    end, record = _places(captioned)["3.txt"][1], 512 * factor
    data = captioned.read_bytes()[:end]
    captioned.write_bytes(data + bytes(-(-(end + 1024) // record) * record - end))
    assert captioned.stat().st_size % 10_240, "else a loss would look the same"
    assert ingest(workspace, captioned).quarantined == 0
    start = _places(captioned)["1.png"][0]
    found = ingest(Workspace(captioned.parent / "v"), _zeroed(captioned, start, end))
    assert (found.new, found.quarantined) == ((1, 1) if end - start + 1024 > record else (1, 0))


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
