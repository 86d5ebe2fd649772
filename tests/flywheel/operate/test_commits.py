"""Ledgers after damage, an incomplete restore, and a first append that was interrupted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck


def errors(workspace: Workspace) -> dict[str, str]:
    return {f.path: f.problem for f in fsck(workspace).findings if f.severity == "error"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "w")
    for number in range(4):
        Ledger(workspace, "signals").append([{"signal_id": f"s{number}", "round": 1, "arm": "a"}], key=f"k{number}")
    return workspace


def test_rows_that_vanish_with_the_newest_commits_are_noticed(workspace: Workspace):
    """An incomplete restore: the log is older than the rows, with or without its records."""
    path = Ledger(workspace, "signals").path
    backup = workspace.root.with_name("backup")
    shutil.copytree(path, backup)
    for number in (3, 4):
        (path / "_delta_log" / f"{number:020d}.json").unlink()
    assert set(errors(workspace)) == {f"ledger/signals/_delta_log/{n:020d}.json" for n in (3, 4)}
    Ledger(workspace, "signals").append([{"signal_id": "new", "round": 1, "arm": "a"}], key="new")
    assert f"ledger/signals/_delta_log/{4:020d}.json" in errors(workspace)
    shutil.rmtree(path)
    shutil.copytree(backup, path)
    log = path / ".hashes" / "log"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:3]))
    for number in (2, 3, 4):
        (path / "_delta_log" / f"{number:020d}.json").unlink()
    named = errors(workspace)
    assert len(named) == 3 and all("older than this file" in why for why in named.values())


def test_commits_are_chained(workspace: Workspace):
    """A change is found by the next commit, though nobody recorded the changed one."""
    path = Ledger(workspace, "signals").path
    changed = path / "_delta_log" / f"{2:020d}.json"
    log = path / ".hashes" / "log"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(line for line in lines if changed.name.encode() not in line))
    assert errors(workspace) == {}
    changed.write_bytes(changed.read_bytes().replace(b'"dataChange":true', b'"dataChange": true'))
    assert errors(workspace) == {
        str(changed.relative_to(workspace.root)): "is not the commit that version 3 was added to"
    }


def test_a_commit_that_is_missing_in_between(workspace: Workspace):
    path = Ledger(workspace, "signals").path / "_delta_log" / f"{2:020d}.json"
    path.unlink()
    assert set(errors(workspace)) == {str(path.relative_to(workspace.root))}


def test_summaries_and_maintenance_are_recorded(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    ledger = Ledger(workspace, "rounds")
    for number in range(1, 22):
        ledger.append([{"round": number, "checkpoint": ".", "snapshot": "s"}], key=str(number))
    summary = ledger.path / "_delta_log" / f"{19:020d}.checkpoint.parquet"
    ledger.compact()
    ledger.vacuum(hours=0)
    ours = {p: w for p, w in errors(workspace).items() if p.startswith("ledger")}
    assert ours == {} and summary.exists()
    data = bytearray(summary.read_bytes())
    data[len(data) // 2] ^= 4
    summary.write_bytes(bytes(data))
    assert str(summary.relative_to(workspace.root)) in errors(workspace)


@pytest.mark.parametrize(
    "state", ["no log", "empty log", "empty commit", "half a commit", "whole lines", "a temporary commit"]
)
def test_an_interrupted_first_append_does_not_count(tmp_path: Path, state: str):
    workspace = Workspace(tmp_path / "w")
    ledger = Ledger(workspace, "signals")
    log = ledger.path / "_delta_log"
    ledger.path.mkdir(parents=True)
    if state != "no log":
        log.mkdir()
    whole = json.dumps({"commitInfo": {"operation": "CREATE TABLE"}}).encode()
    name, data = {
        "empty commit": (f"{0:020d}.json", b""),
        "half a commit": (f"{0:020d}.json", whole[:20]),
        "whole lines": (f"{0:020d}.json", whole + b"\n"),
        "a temporary commit": (f"{0:020d}.json#1", whole[:20]),
    }.get(state, ("", b""))
    if name:
        (log / name).write_bytes(data)
    assert not ledger.exists() and ledger.rows() == [] and fsck(workspace).sound
    assert ledger.append([{"signal_id": "a"}], key="k") and [r["signal_id"] for r in ledger.rows()] == ["a"]
    assert fsck(workspace).sound


@pytest.mark.parametrize("room", [0, 200, 2_500, 4_000])
def test_a_disk_that_is_full_at_the_first_append(tmp_path: Path, room: int):
    """No file may grow beyond `room` bytes: the append fails somewhere, and works when there is room."""
    workspace = Workspace(tmp_path / "w")
    script = f"""
import resource, signal, sys
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
ledger = Ledger(Workspace(sys.argv[1]), "signals")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, resource.RLIM_INFINITY))
ledger.append([{{"signal_id": "a"}}], key="k")
"""
    ended = subprocess.run([sys.executable, "-c", script, str(workspace.root)], capture_output=True)
    assert ended.returncode in (0, 1)
    ledger = Ledger(workspace, "signals")
    ledger.append([{"signal_id": "a"}], key="k")
    assert [r["signal_id"] for r in ledger.rows()] == ["a"] and fsck(workspace).sound


@pytest.mark.parametrize("damage", ["a commit", "an empty commit", "a file", "no file"])
def test_a_ledger_that_cannot_be_read_is_one_sentence(workspace: Workspace, damage: str):
    ledger = Ledger(workspace, "signals")
    ledger.append([{"signal_id": "x"}], key="x")
    file = Path(ledger.files()[-1])
    if damage == "no file":
        file.unlink()
    else:
        damaged = file if damage == "a file" else max(ledger.path.glob("_delta_log/*.json"))
        damaged.write_bytes(b"" if damage == "an empty commit" else damaged.read_bytes()[:-9])
    with pytest.raises(UsageError, match="the ledger signals cannot be read .*: `flywheel fsck` names the file"):
        ledger.rows()
    assert not fsck(workspace).sound


@pytest.mark.parametrize("cut", ["nothing", "half a line", "two lines"])
def test_a_newest_commit_that_was_cut_off_does_not_count(
    workspace: Workspace, cut: str, capsys: pytest.CaptureFixture[str]
):
    """A power cut, or a kill where a file appears before it is whole: nobody has recorded the commit yet."""
    ledger = Ledger(workspace, "signals")
    commit, log = max(ledger.path.glob("_delta_log/*.json")), ledger.path / ".hashes" / "log"
    records = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(line for line in records if commit.name.encode() not in line))
    lines = commit.read_bytes().splitlines(keepends=True)
    left = {"half a line": lines[0][:40], "two lines": b"".join(lines[:2])}
    commit.write_bytes(left.get(cut, b""))
    assert [r["signal_id"] for r in ledger.rows()] == ["s0", "s1", "s2"] and not ledger.has("k3")
    report = fsck(workspace)
    (found,) = [f for f in report.findings if "cut off" in f.problem]
    assert report.sound and "run the command that was at work then again" in found.advice
    assert ledger.append([{"signal_id": "s3", "round": 1, "arm": "a"}], key="k3")
    assert "run the command that was at work then again" in capsys.readouterr().err
    assert [r["signal_id"] for r in ledger.rows()] == ["s0", "s1", "s2", "s3"] and fsck(workspace).sound
    assert len(list(ledger.path.glob("torn-*.json"))) == 1
    assert not ledger.append([{"signal_id": "s3"}], key="k3") and ledger.compact() and len(ledger.rows()) == 4
