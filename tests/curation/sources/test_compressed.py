"""Compressed archives: damage and bombs."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest

from curation.sources import compressed
from curation.sources.compressed import compression, open_archive
from curation.sources.files import state
from curation.sources.ingest import ingest
from flywheel.core.workspace import Workspace
from tests.curation.sources.kinds import compressed as compress
from tests.curation.sources.kinds import tar_members
from tests.curation.sources.pooled import reasons, write_tar


def test_compressions_by_their_first_bytes() -> None:
    assert [compression(compress(b"x" * 99, k)[:6]) for k in ("gz", "bz2", "xz", "zst")] == [
        "gzip",
        "bz2",
        "xz",
        "zstd",
    ]
    assert compression(b"PK\x03\x04") is None


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_a_cut_archive_keeps_what_can_be_read_and_says_so(workspace: Workspace, tmp_path: Path, kind: str) -> None:
    data = write_tar(
        tmp_path / "s.tar", tar_members() | {"z.bin": np.random.default_rng(0).bytes(2_000_000)}
    ).read_bytes()
    (tmp_path / f"s.tar.{kind}").write_bytes(compress(data, kind)[:-40])
    found = ingest(workspace, tmp_path / f"s.tar.{kind}")
    assert found.found == found.new + found.quarantined and found.new == 4 and found.quarantined >= 1
    assert "the compressed data ends or is damaged" in " ".join(reasons(workspace).values())


def test_members_of_several_streams_are_read(tmp_path: Path) -> None:
    for kind in ("gz", "zst"):
        (tmp_path / kind).write_bytes(compress(b"one", kind) + compress(b"two", kind))
        with open_archive(state(str(tmp_path / kind)), faults := []) as file:
            assert file.read() == b"onetwo" and faults == []


def test_a_bomb_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "_FREE_BYTES", 10_000)
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb") as out:
        out.write(bytes(50_000_000))
    (tmp_path / "bomb.tar.gz").write_bytes(buffer.getvalue())
    with open_archive(state(str(tmp_path / "bomb.tar.gz")), faults := []) as file:
        assert file.seek(0, 2) < 10_000_000
    assert faults == ["the archive grows more than 100-fold: read up to there"]
