"""Records of what was written: complete after a kill, apart from other folders, and readable by many writers."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from flywheel.core import hashes
from flywheel.core.errors import UsageError
from flywheel.core.files import discard, discard_folder, rename, rename_folder, replacing, write_bytes
from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def newest(folder: Path) -> dict[str, tuple[str, str]]:
    return {name: (e.kind, e.sha256) for name, e in hashes.read(folder).newest.items()}


def problems(workspace: Workspace) -> dict[str, str]:
    return {f.path: f.problem for f in fsck(workspace).findings}


def write_some(folder: str, start: int) -> None:
    for number in range(start, start + 40):
        write_bytes(Path(folder, f"{number:04d}.bin"), b"%d" % number)


def test_what_is_written_is_recorded_and_what_is_removed_too(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    folder = workspace.path("samples", "a")
    write_bytes(folder / "x", b"1")
    write_bytes(folder / "x", b"2")
    write_bytes(folder / "y", b"3")
    rename(folder / "y", folder / "z")
    discard(folder / "x")
    assert newest(folder) == {"x": ("removed", ""), "y": ("removed", ""), "z": ("file", sha256(b"3"))}
    assert newest(workspace.path("samples")) == {"a/": ("folder", "")} and problems(workspace) == {}
    rename_folder(folder, workspace.path("samples", "b"))
    discard(workspace.path("none"))
    assert problems(workspace) == {"samples/a": "missing, but its writer recorded it"}  # nobody said that it moved
    discard_folder(workspace.path("samples", "b"))
    assert not workspace.path("samples", "b").exists()


def test_the_order_in_which_files_were_written_is_that_of_a_copy_too(tmp_path: Path):
    folder = Workspace(tmp_path / "w").path("tables")
    for name in ("b", "a", "c", "a"):
        write_bytes(folder / name, name.encode())
    shutil.copytree(tmp_path / "w", tmp_path / "copy")
    (tmp_path / "copy" / "tables" / "unrecorded").touch()
    for number, name in enumerate("abc"):
        os.utime(tmp_path / "copy" / "tables" / name, (number, number))
    copy = tmp_path / "copy" / "tables"
    assert [p.name for p in hashes.written(folder, folder.glob("[!.]*"))] == ["b", "c", "a"]
    assert [p.name for p in hashes.written(copy, copy.glob("[!.]*"))] == ["unrecorded", "b", "c", "a"]


def test_folders_outside_a_workspace_get_no_records(tmp_path: Path):
    write_bytes(tmp_path / "pictures" / "a.png", b"1")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.png", "pictures"]


def test_many_processes_record_in_one_folder(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    folder = workspace.path("samples", "many")
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        list(pool.map(write_some, [str(folder)] * 3, (0, 100, 200)))
    records = hashes.read(folder)
    assert len(records.newest) == 120 and not records.damaged and problems(workspace) == {}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_between_a_record_and_its_file_is_no_damage(tmp_path: Path, moment: str):
    """A first write, and one that replaces a file; then the next run sweeps."""
    workspace = Workspace(tmp_path / "w")
    write_bytes(workspace.path("reports", "old"), b"old")
    script = f"""
import os, signal, sys
from pathlib import Path
from flywheel.core import files
real = os.replace
def replace(a, b):
    if {moment == "after"}: real(a, b)
    os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
files.write_bytes(Path(sys.argv[1]), b"new content")
"""
    for name in ("pool/new", "reports/old"):
        ended = subprocess.run([sys.executable, "-c", script, str(workspace.path(name))])
        assert ended.returncode == -signal.SIGKILL
    assert fsck(workspace).sound
    swept = workspace.sweep()
    assert swept == (2 if moment == "before" else 0) and problems(workspace) == {}
    write_bytes(workspace.path("pool", "new"), b"again")
    assert problems(workspace) == {}


def test_a_write_that_fails_takes_its_record_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workspace = Workspace(tmp_path / "w")
    write_bytes(workspace.path("a", "x"), b"1")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr("os.replace", full)
        write_bytes(workspace.path("a", "x"), b"2")
    with pytest.raises(ZeroDivisionError), replacing(workspace.path("a", "y")):
        raise ZeroDivisionError
    assert newest(workspace.path("a")) == {"x": ("file", sha256(b"1"))} and problems(workspace) == {}


def test_a_disk_that_is_full_at_a_folders_first_record_leaves_no_empty_log(tmp_path: Path):
    """An empty log would count as damaged, and its folder as not sound for good."""
    workspace = Workspace(tmp_path / "w")
    soft, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, soft[1]))
        with pytest.raises(OSError):
            hashes.write(workspace.path("a", "b"), [hashes.Entry("x", hashes.LIVING)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
        signal.signal(signal.SIGXFSZ, handler)
    write_bytes(workspace.path("a", "b", "x"), b"1")
    assert newest(workspace.path("a", "b")) == {"x": ("file", sha256(b"1"))} and problems(workspace) == {}
    assert newest(workspace.path("a")).keys() == {"b/"}


def test_a_record_is_written_whole_or_not_at_all(tmp_path: Path):
    """A disk that is full in the middle of a record: the log keeps only whole lines."""
    workspace = Workspace(tmp_path / "w")
    write_bytes(workspace.path("a", "x"), b"1")
    log = workspace.path("a", ".hashes", "log")
    size, soft = log.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, soft[1]))
        with pytest.raises(OSError):
            write_bytes(workspace.path("a", "y"), b"2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
        signal.signal(signal.SIGXFSZ, handler)
    assert log.stat().st_size == size and problems(workspace) == {}
    log.write_bytes(log.read_bytes()[:-3])  # torn all the same: what follows is readable
    write_bytes(workspace.path("a", "y"), b"2")
    assert newest(workspace.path("a")) == {"y": ("file", sha256(b"2"))}
    assert "a/.hashes/log" in problems(workspace)


def test_a_growing_file_is_covered_to_its_end(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    path = workspace.path("checkpoints", "m", "metrics.jsonl")
    write_bytes(path, b"one\n")
    file = hashes.Growing(path, b"one\n")
    for line in (b"two\n", b"three\n"):
        file.append(line)
    assert path.read_bytes() == b"one\ntwo\nthree\n" and problems(workspace) == {}
    path.write_bytes(b"one\ntwo\nthrEe\n")
    assert not fsck(workspace).sound
    path.write_bytes(b"one\ntwo\n")  # killed after the record, before the line
    assert fsck(workspace).sound
    path.write_bytes(b"one\n")
    hashes.compact(path.parent)
    path.write_bytes(b"on")
    assert not fsck(workspace).sound


def test_what_another_library_writes_is_sealed(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    unfinished = workspace.path("enhancers", ".x.tmp")
    unfinished.joinpath("deep").mkdir(parents=True)
    unfinished.joinpath("deep", "model.bin").write_bytes(b"weights")
    rename_folder(unfinished, workspace.path("enhancers", "x"))
    assert problems(workspace) == {}
    workspace.path("enhancers", "x", "deep", "model.bin").write_bytes(b"wEights")
    assert list(problems(workspace)) == ["enhancers/x/deep/model.bin"]
    home = workspace.path(".prefect")
    hashes.living(home)
    home.joinpath("prefect.db").write_bytes(b"1")
    assert list(problems(workspace)) == ["enhancers/x/deep/model.bin"]
    for content in (b"2", b"3"):
        home.joinpath("prefect.db").write_bytes(content)
        hashes.seal(home, again=True)
    home.joinpath("prefect.db").write_bytes(b"4")
    assert list(problems(workspace)) == [".prefect/prefect.db", "enhancers/x/deep/model.bin"]
    shutil.rmtree(home)  # its history may go
    assert list(problems(workspace)) == ["enhancers/x/deep/model.bin"]


def test_a_long_log_is_compacted_while_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workspace = Workspace(tmp_path / "w")
    folder = workspace.path("checkpoints", "m")
    write_bytes(folder / "metrics.jsonl", b"")
    file = hashes.Growing(folder / "metrics.jsonl", b"")
    for number in range(100):
        file.append(b"%d\n" % number)
    assert not hashes.compact(folder)  # short
    monkeypatch.setattr("flywheel.core.hashes._LONG", 1000)
    size = (folder / ".hashes" / "log").stat().st_size
    assert hashes.compact(folder) and (folder / ".hashes" / "log").stat().st_size < size / 10
    file.append(b"more\n")
    assert problems(workspace) == {}


def test_a_file_is_checked_when_it_is_read(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    write_bytes(workspace.path("a", "config.json"), b"{}")
    hashes.verify(workspace.path("a", "config.json"), "restore it")
    workspace.path("a", "config.json").write_bytes(b"{ }")
    with pytest.raises(UsageError, match="config.json has changed since it was written .* restore it"):
        hashes.verify(workspace.path("a", "config.json"), "restore it")
    hashes.verify(tmp_path / "elsewhere", "")


def test_objects_have_records_and_carry_their_hash(s3: str, tmp_path: Path):
    workspace = Workspace(f"{s3}/w")
    folder = workspace.path("samples", "a")
    for name, content in (("x", b"1"), ("x", b"2"), ("y", b"3"), ("z", b"4")):
        write_bytes(folder / name, content)
    discard(folder / "y")
    assert newest(folder)["x"] == ("file", sha256(b"2")) and problems(workspace) == {}
    assert hashes.tagged(folder / "x") == sha256(b"2")
    folder.fs.pipe_file(str(folder / "x"), b"1", Metadata={"sha256": sha256(b"1")})  # killed before the record
    assert problems(workspace) == {}
    folder.fs.pipe_file(str(folder / "x"), b"5")
    folder.fs.rm_file(str(folder / "z"))
    assert set(problems(workspace)) == {"samples/a/x", "samples/a/z"}
    for name in folder.fs.find(str(workspace.root)):  # as `aws s3 sync` does
        place = tmp_path / "copy" / os.path.relpath(name, workspace.root.path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(folder.fs.cat_file(name))
    assert set(problems(Workspace(tmp_path / "copy"))) == {"samples/a/x", "samples/a/z"}


def test_a_clock_that_was_put_back_does_not_bring_back_older_records(s3: str, monkeypatch: pytest.MonkeyPatch):
    workspace = Workspace(f"{s3}/w")
    write_bytes(workspace.path("a", "x"), b"1")
    monkeypatch.setattr(hashes.time, "time_ns", lambda: 10**18)  # 2001
    write_bytes(workspace.path("a", "x"), b"22")
    assert problems(workspace) == {}
    hashes._newest.clear()  # another process
    write_bytes(workspace.path("a", "x"), b"333")
    assert problems(workspace) == {} and newest(workspace.path("a"))["x"] == ("file", sha256(b"333"))


def test_every_line_is_checked(tmp_path: Path):
    line = hashes.Entry("a", hashes.FILE, 3, "0" * 64, 1).line()
    assert json.loads(line.partition(b" ")[2]) == ["a", "file", 3, "0" * 64, 1]
    log = tmp_path / ".hashes" / "log"
    log.parent.mkdir()
    for at in range(len(line)):
        for bit in range(8):
            log.write_bytes(line[:at] + bytes([line[at] ^ (1 << bit)]) + line[at + 1 :] + line)
            assert hashes.read(tmp_path).damaged


def test_a_kill_at_any_byte_of_a_record_leaves_the_folder_sound(tmp_path: Path):
    """The last line is cut at every byte; then the run is repeated, and killed once more amid what it writes first."""
    workspace = Workspace(tmp_path / "w")
    folder, log = workspace.path("a"), workspace.path("a", ".hashes", "log")
    write_bytes(folder / "x", b"1")
    before = log.read_bytes()
    hashes.write(folder, [hashes.Entry("y", hashes.FILE, 1, sha256(b"2"))])
    line = log.read_bytes()[len(before) :]
    known = {"x": ("file", sha256(b"1"))}
    for at in range(len(line)):
        log.write_bytes(before + line[:at])
        if at < len(line) - 1:  # else its record is whole: the file was about to appear
            assert newest(folder) == known and hashes.read(folder).damaged == 0
        else:
            assert newest(folder) == known | {"y": ("file", sha256(b"2"))} and hashes.read(folder).damaged == 0
        if at in (1, 8, 9, 40, len(line) - 2):
            assert fsck(workspace).sound and {f.severity for f in fsck(workspace).findings} == {"note"}
        hashes.write(folder, [hashes.Entry("z", hashes.LIVING)])
        records, whole = hashes.read(folder), log.read_bytes()
        assert "z" in records.newest and (records.damaged, records.torn) == (0, 0 < at < len(line) - 1)
        if at == 40:
            for again in range(len(before) + at, len(whole)):
                log.write_bytes(whole[:again])
                hashes.write(folder, [hashes.Entry("v", hashes.LIVING)])
                assert hashes.read(folder).damaged == 0 and "v" in hashes.read(folder).newest
            for place in range(len(before), len(whole)):  # a line that was cut off and ended is checked like any other
                log.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
                assert hashes.read(folder).damaged


def test_a_log_that_lost_records_of_files_that_are_there_is_no_kill(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    folder, log = workspace.path("a"), workspace.path("a", ".hashes", "log")
    for name in ("x", "y", "z"):
        write_bytes(folder / name, name.encode())
    if hashes.tagged(folder / "y"):
        for name in ("y", "z"):
            os.removexattr(folder / name, "user.sha256")
    log.write_bytes(b"\n".join(log.read_bytes().split(b"\n")[:2])[:-5])
    assert not fsck(workspace).sound
    hashes.write(folder, [hashes.Entry("new", hashes.LIVING)])
    assert problems(workspace)["a/.hashes/log"] == "cut off: 2 files of its folder have no record, such as y"
    assert not fsck(workspace).sound
