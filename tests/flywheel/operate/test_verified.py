"""Files are compared with their records: of any kind, whoever wrote them, and beside a run that works."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest

from flywheel.core import hashes
from flywheel.core.files import write_bytes, write_json
from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck


def found(workspace: Workspace) -> dict[str, str]:
    return {f.path: f.severity for f in fsck(workspace).findings}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "w")
    for name in ("novel/kind.xyz", "novel/deep/er/kind.xyz", "derived/cache.parquet", "reports/report.html"):
        write_bytes(workspace.path(*name.split("/")), b"content")
    return workspace


def test_a_kind_of_file_that_is_new_needs_no_code(workspace: Workspace):
    assert found(workspace) == {}
    workspace.path("novel", "kind.xyz").write_bytes(b"cOntent")
    workspace.path("novel", "deep", "er", "kind.xyz").unlink()
    assert found(workspace) == {"novel/kind.xyz": "error", "novel/deep/er/kind.xyz": "error"}


def test_a_folder_that_is_lost_is_named(workspace: Workspace):
    shutil.rmtree(workspace.path("novel", "deep"))
    assert found(workspace) == {"novel/deep": "error"}
    shutil.rmtree(workspace.path("novel"))
    assert found(workspace) == {"novel": "error"}


def test_what_nobody_recorded_is_named_and_caches_may_go(workspace: Workspace):
    workspace.path("notes.txt").write_text("mine")
    workspace.path("holiday").mkdir()
    workspace.path("holiday", "1.jpg").write_bytes(b"mine")
    workspace.path("derived", "cache.parquet").unlink()
    shutil.rmtree(workspace.path("reports"))
    assert found(workspace) == dict.fromkeys(("notes.txt", "holiday", "derived/cache.parquet", "reports"), "note")
    assert fsck(workspace).sound


@pytest.mark.parametrize("torn", [False, True])
def test_files_whose_records_a_power_cut_took(workspace: Workspace, torn: bool):
    """The newest records never reached the disk; the files did, or only in part."""
    log, file = workspace.path("novel", ".hashes", "log"), workspace.path("novel", "new.xyz")
    before = log.read_bytes()
    write_bytes(file, b"new content")
    if not hashes.tagged(file):
        pytest.skip("this file system keeps no attributes")
    log.write_bytes(before)
    if torn:
        with file.open("r+b") as opened:
            opened.truncate(4)
    assert found(workspace) == {"novel/new.xyz": "error" if torn else "note"}
    write_bytes(file, b"newer content")  # run again
    assert found(workspace) == {}


def test_a_file_as_it_was_before_is_not_excused_by_what_it_carries(workspace: Workspace):
    file = workspace.path("novel", "kind.xyz")
    for content in (b"second", b"third"):
        old = shutil.copy2(file, file.with_name(".older"))
        write_bytes(file, content)
    write_bytes(file, b"fourth")
    shutil.move(old, file)  # with the attribute of its content
    assert found(workspace) == {"novel/kind.xyz": "error"}


def test_lost_records_are_named(workspace: Workspace):
    workspace.path("novel", ".hashes", "log").unlink()
    assert found(workspace) == {"novel/.hashes/log": "error"}
    shutil.rmtree(workspace.path(".hashes"))
    assert ".hashes/log" in found(workspace)


def test_a_writer_that_was_killed_at_the_first_file_of_a_folder_is_a_note(workspace: Workspace):
    made = workspace.root / "a new kind" / "inner"
    (made / ".hashes").mkdir(parents=True)
    (made.parent / ".hashes").mkdir()
    hashes.entered(made.parent)
    (made / ".x.parquet.1.tmp").write_bytes(b"half")
    assert {f.severity for f in fsck(workspace).findings} == {"note"}
    (made / ".x.parquet.1.tmp").rename(made / "x.parquet")
    assert not fsck(workspace).sound


def test_a_workspace_of_a_time_before_hashes_is_one_note(workspace: Workspace):
    for folder in list(workspace.root.rglob(".hashes")):
        shutil.rmtree(folder)
    write_json(workspace.path("workspace.format-2.json"), {"format": 2})
    for folder in list(workspace.root.rglob(".hashes")):
        shutil.rmtree(folder)
    assert found(workspace) == {".": "note"}
    write_bytes(workspace.path("novel", "young.xyz"), b"content")  # by this version
    workspace.path("novel", "young.xyz").write_bytes(b"Content")
    assert found(workspace)["novel/young.xyz"] == "error"


def test_nothing_is_reported_while_files_are_written(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.wait(0.002):
            number += 1
            write_bytes(workspace.path("samples", "a", f"{number % 50}.bin"), b"%d" % number)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            assert fsck(workspace).sound
    finally:
        done.set()
        thread.join()
