"""Scheduled runs follow each other by locks of the workspace; runs whose process is gone are marked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows import turns
from flows.turns import end_lost_runs, once_at_a_time, one_at_a_time
from flywheel.core.lock import locked
from flywheel.core.workspace import Workspace
from tests.flows.conftest import post


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another run holds the lock: a file that is opened again is another holder."""
    with locked(path):
        yield


def test_a_second_run_of_a_flow_does_nothing_while_the_first_one_works(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(turns, "PATIENCE", 0.4)
    monkeypatch.setattr(turns.flow_run, "flow_name", "flywheel-x", raising=False)
    done: list[str] = []

    @once_at_a_time
    def body(workspace: str, word: str) -> str:
        done.append(word)
        return word

    with held(workspace.path(".flywheel-x.lock")):
        skipped = body(str(workspace.root), word="no")
        assert skipped.name == "Skipped" and skipped.is_completed() and "still works on" in skipped.message
    assert body(str(workspace.root), "yes") == "yes" and done == ["yes"]
    assert body(workspace=str(workspace.root / "none"), word="creates it") == "creates it"


def test_a_second_run_goes_on_when_the_first_one_ends_in_time(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns.flow_run, "flow_name", "flywheel-x", raising=False)
    taken, release = threading.Event(), threading.Event()

    def first() -> None:
        with held(workspace.path(".flywheel-x.lock")):
            taken.set()
            release.wait(20)

    other = threading.Thread(target=first)
    other.start()
    taken.wait(20)
    threading.Timer(0.5, release.set).start()
    assert once_at_a_time(lambda workspace: "done")(workspace=str(workspace.root)) == "done"
    other.join()


def test_runs_of_different_flows_on_one_workspace_follow_each_other(workspace: Workspace):
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        with one_at_a_time(workspace):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_a_run_whose_process_is_gone_is_marked(
    server: dict[str, str], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setattr(turns, "_SETTLE", 0.1)
    root = str(workspace.root)

    def running(flow: str, place: str, *tags: str) -> str:
        flow_id = post(server, "flows/", {"name": flow})["id"]
        run = post(server, "flow_runs/", {"flow_id": flow_id, "parameters": {"workspace": place}, "tags": tags})
        state = {"state": {"type": "RUNNING", "name": "Running"}, "force": True}
        post(server, f"flow_runs/{run['id']}/set_state", state)
        return run["id"]

    lost = running("flywheel-curate", root, "flywheel", "curate")
    kept = [
        running("flywheel-route", root, "flywheel", "route"),  # its lock is held: it works
        running("flywheel-curate", root + "2", "flywheel", "curate"),  # of another workspace
        running("flywheel-curate", root),  # of the command
    ]
    with (
        temporary_settings({PREFECT_API_URL: server["PREFECT_API_URL"]}),
        locked(workspace.path(".flywheel-route.lock")),
    ):
        assert end_lost_runs(root) == []  # too young to tell
        monkeypatch.setattr(turns, "_YOUNG", turns.timedelta(0))
        assert len(end_lost_runs(root)) == 1 and end_lost_runs(root) == []
    states = {r["id"]: r["state_type"] for r in post(server, "flow_runs/filter", {}) if r["id"] in (lost, *kept)}
    assert states.pop(lost) == "CRASHED" and set(states.values()) == {"RUNNING"} and len(states) == 3
