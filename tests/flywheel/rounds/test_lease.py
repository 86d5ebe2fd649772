"""One run at a time: who holds a workspace, and who takes it over."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks.command import clock_library
from curation.policy.reader import load_policy
from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.presets import load_preset
from flywheel.rounds import lease
from flywheel.rounds.job import Job

ROOT = Path(__file__).resolve().parents[3]


def job(workspace: Workspace) -> Job:
    return Job(workspace=str(workspace.root), source="/none")


def hold_for_a_while(root: str, started: str, seconds: float) -> None:
    workspace = Workspace(root)
    with lease.hold(workspace, job(workspace)):
        Path(started).touch()
        time.sleep(seconds)


def test_two_runs_cannot_hold_a_workspace_and_a_killed_one_gives_it_back(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    spawn = multiprocessing.get_context("spawn")
    holder = spawn.Process(target=hold_for_a_while, args=(str(workspace.root), str(tmp_path / "on"), 300))
    holder.start()
    while not (tmp_path / "on").exists():
        assert holder.is_alive()
        time.sleep(0.05)
    with pytest.raises(UsageError, match=f"process {holder.pid}"):
        with lease.hold(workspace, job(workspace)):
            pass
    assert lease.running(workspace)["pid"] == holder.pid
    holder.kill()
    holder.join()
    assert lease.running(workspace) is None
    with lease.hold(workspace, job(workspace)) as number:
        assert number == 2 and lease.running(workspace)["pid"] == os.getpid()
    assert lease.running(workspace) is None and lease.last_job(workspace) == job(workspace)


def test_of_two_that_see_a_free_workspace_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workspace = Workspace(tmp_path / "w")
    before = lease.Ledger(workspace, "runs").rows()  # both looked before either acquired
    with lease.hold(workspace, job(workspace)):
        monkeypatch.setattr(lease.Ledger, "rows", lambda self: before)
        with pytest.raises(UsageError, match="another run"):
            with lease.hold(workspace, replace(job(workspace), seed=1)):
                pass


def test_settings_are_copied_with_all_that_they_are_based_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own").mkdir()
    for name, text in {
        "small.toml": '\ufeffpolicy = "own/mine.toml"\n',
        "own/mine.toml": '# ours\nbase = "../house é\'s.toml"\n[S1.filters.entropy]\nmax = 9.0\n',
        "house é's.toml": 'base = "demo"\n[S1.filters.entropy]\nscore = "pixels.entropy"\nmin = 1.5\n',
    }.items():
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    wanted = load_policy("own/mine.toml")
    for place, preset, policy in (("one", "small.toml", None), ("two", "tiny", "own/mine.toml")):
        workspace = Workspace(tmp_path / place)
        with lease.hold(workspace, replace(job(workspace), preset=preset, policy=policy)):
            pass
        (tmp_path / place).rename(tmp_path / "own" / place)
        monkeypatch.chdir("/")
        (tmp_path / "house é's.toml").rename(tmp_path / "gone")
        assert load_policy(lease.last_job(Workspace(tmp_path / "own" / place)).policy) == wanted
        monkeypatch.chdir(tmp_path)
        (tmp_path / "gone").rename(tmp_path / "house é's.toml")


HOLD = """
import os, signal, sys, time
from flywheel.core import heartbeat
from flywheel.core.ledger import Ledger
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from flywheel.rounds.job import Job
from flywheel.rounds.lease import hold
heartbeat.BEAT_SECONDS, heartbeat.SILENT_SECONDS = 0.3, float(sys.argv[3])
workspace = Workspace(sys.argv[1])
try:
    with hold(workspace, Job(str(workspace.root), "src")) as number:
        print("HOLDS", number, flush=True)
        if sys.argv[2] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        sys.stdin.readline() if sys.argv[2] == "stay" else None
        Ledger(workspace, "costs").append([{"cost_id": str(number)}], key=f"cost/{number}")
        print("RECORDED", number, flush=True)
except UsageError as error:
    print("refused:", error, flush=True)
"""


def start(
    workspace: Workspace, what: str, *, silent: float = 2, inside: tuple[str, ...] = (), **environment: str
) -> subprocess.Popen[str]:
    line = [*inside, sys.executable, "-c", HOLD, str(workspace.root), what, str(silent)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(line, cwd=ROOT, **pipes, text=True, env=os.environ | environment)


def said(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip()


namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or subprocess.run(["unshare", "--pid", "--fork", "true"]).returncode != 0,
    reason="needs root and `unshare`",
)


@namespaces
@pytest.mark.parametrize("inside", [("unshare", "--pid", "--fork", "--mount-proc"), ("unshare", "--uts")])
def test_a_living_run_is_not_taken_over_from_another_container(tmp_path: Path, inside: tuple[str, ...]):
    workspace = Workspace(tmp_path / "w")
    first = start(workspace, "stay", silent=20)
    assert said(first) == "HOLDS 1"
    assert said(start(workspace, "go", silent=20, inside=inside)).startswith("refused: another run is working")
    first.stdin.write("go on\n")
    first.stdin.flush()
    assert said(first) == "RECORDED 1"


@namespaces
def test_two_containers_of_one_host_name_in_which_both_are_process_1(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")

    def container(what: str, silent: float) -> subprocess.Popen[str]:
        inside = ("unshare", "--uts", "bash", "-c", 'hostname box; exec unshare --pid --fork --mount-proc "$@"', "bash")
        return start(workspace, what, silent=silent, inside=inside)

    first = container("stay", 20)
    assert said(first) == "HOLDS 1"
    row, beat = Ledger(workspace, "runs").rows()[0], json.loads((workspace.root / "runs/heartbeat.json").read_text())
    assert row["host"] == "box" and beat["pid"] == 1
    assert said(container("go", 20)).startswith("refused: another run is working")
    for process in psutil.Process(first.pid).children(recursive=True):  # the whole container, as the kernel does
        process.kill()
    assert said(container("go", 2)) == "HOLDS 2"


@pytest.mark.parametrize("hours", [-1, 1])
def test_steps_of_a_clock_neither_free_nor_block_a_workspace(tmp_path: Path, hours: int):
    """The holder's clock jumps while it works, and that of the next run is off."""
    library = clock_library(tmp_path)
    if library is None:
        pytest.skip("no C compiler")
    workspace, offset = Workspace(tmp_path / "w"), tmp_path / "clock"

    def step(seconds: int) -> None:
        offset.touch()
        with offset.open("r+b") as opened:  # in place: the library maps it
            opened.write(seconds.to_bytes(8, sys.byteorder, signed=True))

    step(0)
    shifted = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}
    first = start(workspace, "stay", silent=20, **shifted)
    assert said(first) == "HOLDS 1"
    step(hours * 3600)
    elsewhere = ("unshare", "--pid", "--fork", "--mount-proc") if os.geteuid() == 0 else ()
    for clock in ({}, shifted):
        assert said(start(workspace, "go", silent=20, inside=elsewhere, **clock)).startswith("refused: another run")
    first.stdin.write("go on\n")
    first.stdin.flush()
    assert said(first) == "RECORDED 1" and first.wait() == 0
    assert said(start(workspace, "die", **shifted)) == "HOLDS 2"
    step(-hours * 3600)
    next_one = start(workspace, "go", inside=elsewhere, **shifted)
    assert [said(next_one), said(next_one)] == ["HOLDS 3", "RECORDED 3"]
    assert lease.running(workspace) is None


@namespaces
def test_a_killed_container_that_comes_back_under_another_name_goes_on(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")

    def container(name: str, what: str) -> subprocess.Popen[str]:
        command = f'hostname {name}; exec unshare --pid --fork --mount-proc "$@"'
        return start(workspace, what, inside=("unshare", "--uts", "bash", "-c", command, "bash"))

    assert said(container("box-1", "die")) == "HOLDS 1"
    assert said(container("box-2", "go")) == "HOLDS 2"


@namespaces
def test_a_run_that_stood_still_while_another_took_over_records_nothing_more(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    first = start(workspace, "stay")
    assert said(first) == "HOLDS 1"
    os.kill(first.pid, signal.SIGSTOP)
    second = start(workspace, "go", inside=("unshare", "--pid", "--fork", "--mount-proc"))
    assert [said(second), said(second)] == ["HOLDS 2", "RECORDED 2"]
    os.kill(first.pid, signal.SIGCONT)
    first.stdin.write("go on\n")
    first.stdin.flush()
    assert said(first).startswith("refused: another run took over the workspace")
    assert [r["cost_id"] for r in Ledger(workspace, "costs").rows()] == ["2"]
    assert lease.running(workspace) is None


def test_a_stopped_process_of_this_machine_is_alive(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    first = start(workspace, "stay")
    assert said(first) == "HOLDS 1"
    os.kill(first.pid, signal.SIGSTOP)
    assert said(start(workspace, "go")).startswith("refused")
    first.kill()


def test_unlock_takes_the_workspace_back_with_a_reason(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    with pytest.raises(UsageError, match="no run holds"):
        lease.unlock(workspace, by="ada", why="gone")
    first = start(workspace, "stay")
    assert said(first) == "HOLDS 1"
    with pytest.raises(UsageError, match="--why"):
        lease.unlock(workspace, by="ada", why=" ")
    assert lease.unlock(workspace, by="ada", why="the node is gone")["pid"] == first.pid
    assert lease.running(workspace) is None and lease.last_job(workspace).source == "src"
    with lease.hold(workspace, job(workspace)) as number:
        assert number == 2
    first.stdin.write("go on\n")
    first.stdin.flush()
    assert said(first).startswith("refused: another run took over")
    note = json.loads(Ledger(workspace, "runs").rows()[1]["job"])
    assert note == {"unlocked_by": "ada", "why": "the node is gone"}


def test_settings_given_by_a_relative_path_are_the_runs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "small.toml").write_text('policy = "demo"\n')
    monkeypatch.chdir(tmp_path / "here")
    workspace = Workspace("w")
    with lease.hold(workspace, replace(job(workspace), preset="small.toml")):
        pass
    (tmp_path / "here" / "small.toml").unlink()
    monkeypatch.chdir("/")
    (tmp_path / "here" / "w").rename(tmp_path / "moved")
    preset = load_preset(lease.last_job(Workspace(tmp_path / "moved")).preset)
    assert (preset.name, preset.policy) == ("small", "demo")
