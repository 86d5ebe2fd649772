"""Local copies of folders on S3, and the lock that is an object."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from flywheel.core import mirror
from flywheel.core.files import write_bytes
from flywheel.core.mirror import fetched, kept, publish
from flywheel.core.storage import located


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_folder_that_is_worked_on_here_and_kept_there(s3: str, cache: Path, monkeypatch: pytest.MonkeyPatch):
    there = located(f"{s3}/w/run")
    here = fetched(there)
    assert here.is_relative_to(cache) and names(here) == []
    for name in ("step-1/model.bin", "step-1/config.json", "metrics.jsonl", ".step-2.tmp/model.bin"):
        write_bytes(here / name, name.encode())
    publish(there)
    assert names(there) == ["metrics.jsonl", "step-1/config.json", "step-1/model.bin"]

    order: list[str] = []
    for call, sign in (("put_file", "+"), ("rm_file", "-")):
        real = getattr(there.fs, call)
        monkeypatch.setattr(
            there.fs, call, lambda *a, real=real, sign=sign: (order.append(sign + Path(a[-1]).name), real(*a))
        )
    publish(there)
    assert order == []  # nothing differs
    (here / "step-1").rename(here / "step-3")
    with open(here / "metrics.jsonl", "a") as file:
        file.write("more")
    publish(there)
    # What says that a checkpoint is whole comes last and goes first.
    assert order == ["-config.json", "-model.bin", "+metrics.jsonl", "+model.bin", "+config.json"]
    assert names(there) == ["metrics.jsonl", "step-3/config.json", "step-3/model.bin"]

    # Another machine, then this one after the other has gone on.
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "other"))
    other = fetched(there)
    assert other != here and names(other) == names(there)
    write_bytes(other / "step-3" / "model.bin", b"step-1/model.BIN")  # as long as before
    os.utime(other / "step-3" / "model.bin", (1, 1))
    (other / "metrics.jsonl").unlink()
    publish(there)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert fetched(there / "step-3" / "model.bin").read_bytes() == b"step-1/model.BIN"
    assert names(fetched(there)) == [".step-2.tmp/model.bin", "step-3/config.json", "step-3/model.bin"]


def test_a_local_path_is_its_own_copy(tmp_path: Path):
    write_bytes(tmp_path / "a" / "b", b"")
    publish(tmp_path / "a")
    assert fetched(tmp_path / "a") == tmp_path / "a" and kept([str(tmp_path / "a" / "b")]) == [
        str(tmp_path / "a" / "b")
    ]


def test_a_folder_that_was_never_fetched_empties_nothing(s3: str):
    write_bytes(located(f"{s3}/w/run/config.json"), b"{}")
    publish(located(f"{s3}/w/run"))
    assert names(located(f"{s3}/w/run")) == ["config.json"]


def test_an_object_that_marks_a_folder_is_no_file(s3: str):
    there = located(f"{s3}/w/run")
    write_bytes(there / "step-1" / "config.json", b"{}")
    for marker in ("", "step-1/"):
        there.fs.pipe_file(f"{there}/{marker}", b"")
    assert names(fetched(there)) == ["step-1/config.json"]
    assert names(fetched(there / "step-1")) == ["config.json"]


def test_what_never_changes_is_fetched_once(s3: str, monkeypatch: pytest.MonkeyPatch):
    files = [f"{s3}/w/ledger/{n}" for n in range(3)]
    for file in files:
        write_bytes(located(file), file.encode())
    assert [Path(c).read_bytes().decode() for c in kept(files[:2])] == files[:2]
    monkeypatch.setattr(mirror, "located", lambda f: located(f) if f != files[0] else pytest.fail("asked for again"))
    kept(files[1:])


def test_publishing_now_and_then(s3: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mirror, "_PUBLISH_SECONDS", 1)
    there = located(f"{s3}/w/run")
    write_bytes(fetched(there) / "metrics.jsonl", b"{}")
    publisher = mirror.Publisher([there])
    publisher()
    assert names(there) == []
    time.sleep(1.1)
    publisher()
    assert names(there) == ["metrics.jsonl"]


def test_the_file_that_says_that_a_folder_is_whole_is_written_last(s3: str, monkeypatch: pytest.MonkeyPatch):
    there, order = located(f"{s3}/w/pipeline"), list[str]()
    here = fetched(there)
    for name in ("model_index.json", "unet/config.json", "unet/weights.bin", "vae/config.json"):
        write_bytes(here / name, name.encode())
    real = there.fs.put_file
    monkeypatch.setattr(there.fs, "put_file", lambda *a: (order.append(a[-1].partition("pipeline/")[2]), real(*a)))
    publish(there)
    assert order == ["unet/weights.bin", "unet/config.json", "vae/config.json", "model_index.json"]
