"""The fuzz damages what it says, and notices what vanishes."""

from __future__ import annotations

import shutil
import signal
import tarfile
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fuzz
from flywheel.core.workspace import Workspace


def _whole(kind: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source that is not damaged."""
    with monkeypatch.context() as undamaged:
        undamaged.setattr(fuzz, "damaged", lambda rng, data: data)
        return fuzz.SOURCES[kind](np.random.default_rng(1), place)


@pytest.mark.parametrize("kind", fuzz.SOURCES)
def test_a_sound_source_is_used_whole(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _whole(kind, tmp_path / "source", monkeypatch)
    assert fuzz.outcome(source, Workspace(tmp_path / "w")) == "whole"


def test_a_row_that_vanishes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ingest would leave it: a picture and its line are gone, or members of an archive."""
    folder = _whole("folder", tmp_path / "folder", monkeypatch)
    lines = (folder / "captions.jsonl").read_text().splitlines()
    (folder / "captions.jsonl").write_text("\n".join(lines[1:]))
    next(folder.glob("0.*")).unlink()
    assert fuzz.outcome(folder, Workspace(tmp_path / "w1")) == "uncounted"
    archive = _whole("archive", tmp_path / "archive", monkeypatch)
    with tarfile.open(archive) as read, tarfile.open(tmp_path / "short.tar.gz", "w:gz") as written:
        for member in read:
            if not member.name.startswith(("2.", "3.")):
                written.addfile(member, read.extractfile(member))
    assert fuzz.outcome(tmp_path / "short.tar.gz", Workspace(tmp_path / "w2")) == "uncounted"


def test_zeros_over_the_last_members_make_a_sound_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = _whole("archive", tmp_path / "archive", monkeypatch)
    with tarfile.open(archive) as read:
        first, *_, last = read.getmembers()
    data = archive.read_bytes()
    end = last.offset_data + 512
    archive.write_bytes(data[: last.offset] + bytes(len(data) - last.offset))
    shorter = shutil.copy(archive, tmp_path / "shorter.tar")
    assert fuzz._sound(Path(shorter)) == (-(-(last.offset + 1024) // 10240) == -(-(end + 1024) // 10240))
    archive.write_bytes(data[: first.offset_data] + bytes(2048) + data[first.offset_data + 2048 :])
    assert fuzz._sound(archive), "content of zeros is content"
    for damaged in (bytes(512) + data[512:], data[: first.offset_data + 9], b"no tar"):
        archive.write_bytes(damaged)
        assert not fuzz._sound(archive)


def test_each_source_ends_in_a_word() -> None:
    ours, theirs = Pipe(duplex=False)
    before = signal.getsignal(signal.SIGALRM)
    try:
        fuzz._batch(range(8), 5, 120, None, theirs)
    finally:
        signal.signal(signal.SIGALRM, before)
    answers = [ours.recv() for _ in range(8)]
    assert [kind for kind, _ in answers] == [*fuzz.SOURCES] * 2
    assert {end for _, end in answers} <= {"whole", "quarantined", "refused"}


def test_every_change_is_made() -> None:
    data, rng = bytes(range(1, 256)) * 8, np.random.default_rng(0)
    found = [fuzz.damaged(rng, data) for _ in range(200)]
    assert any(len(f) < len(data) for f in found) and any(len(f) > len(data) for f in found)
    assert any(bytes(100) in f for f in found), "long runs of zeros too"
    assert fuzz.damaged(rng, b"") == b""
