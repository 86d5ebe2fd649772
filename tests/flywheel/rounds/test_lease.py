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

import pytest

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


def start(workspace: Workspace, what: str, *, silent: float = 2, inside: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    line = [*inside, sys.executable, "-c", HOLD, str(workspace.root), what, str(silent)]
    return subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


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
