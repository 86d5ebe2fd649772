"""A run as others see it: what it does, whether it is there, and that it ends when somebody asks for it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.progress import Progress
from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck
from flywheel.rounds import lease, live
from flywheel.rounds.job import Job
from tests.flywheel.cli.command import flywheel, wrong

RUN = """
import sys, time
from flywheel.cli.stopping import stoppable
from flywheel.core.progress import Progress
from flywheel.core.workspace import Workspace
from flywheel.rounds.job import Job
from flywheel.rounds.lease import hold
from flywheel.rounds.live import reported
workspace, progress = Workspace(sys.argv[1]), Progress(every=60)
with stoppable(), hold(workspace, Job(str(workspace.root), "/none")) as number:
    with reported(workspace, number, progress) as report:
        report.round = 3
        progress.say("begun")
        with progress.step("round 3: train"):
            for n in range(10**6):
                progress(n, 10**6, "loss 0.5")
                time.sleep(0.01)
"""


@contextmanager
def at_work(workspace: Workspace, watch: live.Watch) -> Iterator[tuple[subprocess.Popen[str], live.Live]]:
    """A process that runs, and what it reported once it trained."""
    command = [sys.executable, "-c", RUN, str(workspace.root)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        while not ((seen := watch.look()) and seen.done and seen.seconds_left):
            assert process.poll() is None, process.stderr
            time.sleep(0.1)
        yield process, seen
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_run_tells_what_it_does_and_ends_in_order_when_asked(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    watch = live.Watch(workspace)
    with at_work(workspace, watch) as (process, seen):
        assert (seen.run, seen.round, seen.pid, seen.state) == (1, 3, process.pid, "working")
        assert (seen.step, seen.total, seen.note) == ("round 3: train", 10**6, "loss 0.5")
        assert seen.lines[0].endswith("begun") and seen.done < seen.total and seen.seconds_left > 60
        flywheel("stop", "--by", "ada", "--why", "the disk is needed", "-w", workspace.root)
        assert (asked := watch.look()) is None or asked.asked_by == "ada"
        said = process.communicate(timeout=20)[1]
    assert process.returncode == 130 and "Traceback" not in said
    assert "ada asked this run to stop: the disk is needed" in said and "the same command resumes" in said
    assert watch.look() is None and lease.running(workspace) is None
    rows = Ledger(workspace, "runs").rows()
    assert [r["kind"] for r in rows] == ["acquired", "stop", "released"]
    assert json.loads(rows[1]["job"]) == {"by": "ada", "why": "the disk is needed"}
    assert fsck(workspace).findings == ()
    job = Job(str(workspace.root), "/none")
    with lease.hold(workspace, job) as number, live.reported(workspace, number, Progress()):
        time.sleep(1.5)  # the request is the earlier run's, not this one's
        assert lease.last_job(workspace) == job and watch.look().run == 2


@pytest.mark.slow
def test_a_run_that_was_killed_is_not_said_to_work(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    watch = live.Watch(workspace)
    with at_work(workspace, watch) as (process, _):
        process.kill()
        process.wait()
        assert watch.look().state == "gone"
        assert "no run works" in wrong("stop", "--by", "ada", "--why", "x", "-w", workspace.root)


def test_a_run_elsewhere_is_silent_for_a_while_before_it_counts_as_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, now = Workspace(tmp_path / "w"), [1000.0]
    with lease.hold(workspace, Job(str(workspace.root), "/none")), live.reported(workspace, 1, Progress()):
        place = lease.heartbeat(workspace)
        beat = json.loads(place.read_text()) | {"boot": "another machine"}
        monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
        watch = live.Watch(workspace)
        for beats, later, state in ((1, 0, "working"), (1, 40, "working"), (2, 10, "working"), (2, 44, "working"),
                                    (2, 2, "gone"), (3, 0, "working")):  # fmt: skip
            now[0] += later
            monkeypatch.setattr(live, "glance", lambda path, n=beats: (None, json.dumps(beat | {"beat": n}).encode()))
            assert watch.look().state == state, (beats, later)
        live.ask_to_stop(workspace, by="ada", why="x")
        with pytest.raises(UsageError, match="asked to stop before"):
            live.ask_to_stop(workspace, by="bob", why="y")
        assert replace(watch.look(), lines=()).asked_by == "ada"


def test_a_request_needs_a_name_and_a_reason(tmp_path: Path) -> None:
    for by, why in ((" ", "x"), ("ada", "")):
        with pytest.raises(UsageError, match="say who asks"):
            live.ask_to_stop(Workspace(tmp_path / "w"), by=by, why=why)


def test_a_run_on_s3_is_seen_and_asked_to_stop(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    workspace = Workspace(f"{s3}/w")
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda signum, _: heard.append(signum))
    try:
        with lease.hold(workspace, Job(str(workspace.root), "/none")) as number:
            report = live.Report(workspace, number, Progress())
            report.write()
            assert live.Watch(workspace).look().state == "working" and not report.heed()
            live.ask_to_stop(workspace, by="ada", why="x")
            assert report.heed() and heard == [signal.SIGINT] and not report.heed(), "once"
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_request_is_heeded_after_the_storage_was_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3's client raises errors of its own, which are no `OSError`."""
    from botocore.exceptions import ConnectionClosedError

    workspace, looks = Workspace(tmp_path / "w"), list[int]()

    def away_once(*_: object) -> None:
        looks.append(1)
        if len(looks) == 1:
            raise ConnectionClosedError(endpoint_url="http://127.0.0.1")

    monkeypatch.setattr(live, "_asked", away_once)
    monkeypatch.setattr(live, "_LOOK_SECONDS", 0.01)
    with live.reported(workspace, 1, Progress()):
        until = time.monotonic() + 10
        while len(looks) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    assert len(looks) >= 3
