"""One run at a time: who holds a workspace, and who takes it over."""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from flywheel.rounds import lease
from flywheel.rounds.job import Job


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
