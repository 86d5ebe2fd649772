"""Zips with odd members."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.sources.ingest import ingest
from curation.sources.layout import NESTED
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture
from tests.curation.sources.kinds import zipped
from tests.curation.sources.pooled import reasons, rows

PICTURES = [encoded(texture(n, 48, 40)) for n in range(5)]


def test_odd_members_cost_themselves(workspace: Workspace, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "good.png")
        archive.writestr("good.png", PICTURES[0])
        archive.writestr("good.txt", "a caption")
        archive.writestr("/absolute.png", PICTURES[1])
        archive.writestr("../escape.png", PICTURES[1])
        archive.writestr("folder/", "")
        archive.writestr("__MACOSX/._good.png", "x")
        archive.writestr("page.png", "<html>")
        archive.writestr("twice.png", PICTURES[2])
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("twice.png", PICTURES[3])
        archive.writestr("bad-crc.png", PICTURES[4])
    data = bytearray(buffer.getvalue())
    data[data.index(PICTURES[4]) + 100] ^= 1
    (tmp_path / "s.zip").write_bytes(data)
    found = ingest(workspace, tmp_path / "s.zip")
    assert (found.found, found.new, found.quarantined) == (8, 2, 6)
    assert {r["image"] for r in rows(workspace)} == {PICTURES[0], PICTURES[3]}
    told = {k.rpartition("::")[2]: v for k, v in reasons(workspace).items()}
    assert "link in an archive" in told["link.png"] and "path traversal" in told["escape.png"]
    assert "damaged archive member" in told["bad-crc.png"] and "not an image" in told["page.png"]
    assert any("same name" in v for v in told.values())


def test_a_member_that_is_encrypted_or_says_it_is_huge(workspace: Workspace, tmp_path: Path) -> None:
    data = bytearray(zipped({"a.png": PICTURES[0], "b.png": PICTURES[1]}))
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    data[first + 8] |= 1
    data[second + 24 : second + 28] = struct.pack("<I", 2**31)
    (tmp_path / "s.zip").write_bytes(data)
    found = ingest(workspace, tmp_path / "s.zip")
    assert (found.new, found.quarantined) == (0, 2)
    assert sorted(v.partition(":")[0] for v in reasons(workspace).values()) == ["encrypted archive member", "too large"]


def test_nothing_inside(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "s.zip").write_bytes(zipped({}))
    with pytest.raises(UsageError, match="holds no files"):
        ingest(workspace, tmp_path / "s.zip")


def test_archives_inside_and_the_table_of_an_image_folder(workspace: Workspace, tmp_path: Path) -> None:
    table = io.BytesIO()
    pq.write_table(pa.table({"file_name": ["0.png"], "text": ["nought"]}), table)
    members = {"a/0.png": PICTURES[0], "a/metadata.parquet": table.getvalue(), "b.tar": b"x", "c.zip": b"x"}
    (tmp_path / "s.zip").write_bytes(zipped(members))
    ingested = ingest(workspace, tmp_path / "s.zip")
    assert (ingested.new, ingested.quarantined) == (1, 2)
    assert set(reasons(workspace).values()) == {NESTED}
    assert [r["caption"] for r in rows(workspace)] == ["nought"]
