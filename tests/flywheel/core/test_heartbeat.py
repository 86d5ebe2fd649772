"""Signs of life: of this process, of one that ended, and of one elsewhere that can only be watched."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path

import pytest

from flywheel.core import heartbeat
from flywheel.core.errors import UsageError
from flywheel.core.files import write_json
from flywheel.core.heartbeat import beating, is_beating
from flywheel.core.workspace import Workspace


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(heartbeat, "_POLL_SECONDS", 0.02)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "beat.json"


def elsewhere(path: Path, **changes: object) -> None:
    """The same beat, as a process on another machine would write it."""
    write_json(path, json.loads(path.read_text()) | {"boot": "another machine"} | changes)


def test_a_holder_is_alive_while_its_block_runs(path: Path) -> None:
    assert not is_beating(path)
    with beating(path) as check:
        check()
        assert is_beating(path)
    assert not path.exists() and not is_beating(path)


def test_a_process_that_ended_is_dead_at_once_and_its_pid_alone_proves_nothing(path: Path) -> None:
    with beating(path):
        beat = json.loads(path.read_text())
    with subprocess.Popen(["true"]) as ended:
        pass
    path.write_text(json.dumps(beat | {"pid": ended.pid}))
    assert not is_beating(path)
    path.write_text(json.dumps(beat | {"ticks": "1"}))  # this pid, but started at another time
    assert not is_beating(path)


def test_a_holder_elsewhere_is_watched_until_it_beats_or_was_silent_for_long(path: Path) -> None:
    with beating(path):
        beat = json.loads(path.read_text())
    path.write_text(json.dumps(beat))
    elsewhere(path)
    assert not is_beating(path, silent=0.1)
    later = threading.Timer(0.1, elsewhere, (path,), {"beat": 1})
    later.start()
    assert is_beating(path, silent=30)
    gone = threading.Timer(0.1, path.unlink)
    gone.start()
    assert not is_beating(path, silent=30)
    later.join()
    gone.join()


def test_a_holder_that_was_taken_over_must_stop_and_leaves_the_others_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 3600)  # no beat in between
    with beating(path) as check:
        elsewhere(path, token="another run")
        with pytest.raises(UsageError, match="another run took over the workspace"):
            check()
        path.unlink()
        with pytest.raises(UsageError, match="another run took over"):
            check()
        path.write_text(json.dumps({"token": "another run", "pid": 1, "ticks": "1"}))
    assert json.loads(path.read_text())["token"] == "another run"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_what_is_no_heartbeat_holds_nothing(path: Path, text: str) -> None:
    path.write_text(text)
    assert not is_beating(path)


def test_on_s3_a_holder_that_stood_still_cannot_overwrite_the_next(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads its own beat, another takes over, and only then does it write."""
    workspace = Workspace(f"{s3}/w")
    path = workspace.path("runs", "heartbeat.json")
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 3600)
    with beating(path) as check:
        assert heartbeat._renew(path, json.loads(path.read_bytes())["token"], 1)
        mine = json.loads(path.read_bytes())["token"]
        read = heartbeat.read_tagged

        def stand_still(place: Path) -> tuple[bytes, str]:
            answer = read(place)
            monkeypatch.setattr(heartbeat, "read_tagged", read)
            path.write_bytes(json.dumps(json.loads(answer[0]) | {"token": "the next run"}).encode())
            return answer

        monkeypatch.setattr(heartbeat, "read_tagged", stand_still)
        heartbeat._renew(path, mine, 2)
        assert json.loads(path.read_bytes())["token"] == "the next run"
        assert not heartbeat._renew(path, mine, 3)
        with pytest.raises(UsageError, match="another run took over"):
            check()
    assert json.loads(path.read_bytes())["token"] == "the next run"


def test_a_storage_that_stays_away_for_a_while_does_not_end_the_signs_of_life(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3's client raises errors of its own, which are no `OSError`: a thread that dies of one never renews again."""
    from botocore.exceptions import ConnectionClosedError

    renew, failed = heartbeat._renew, threading.Event()

    def away_once(*arguments: object) -> bool:
        if not failed.is_set():
            failed.set()
            raise ConnectionClosedError(endpoint_url="http://127.0.0.1")
        return renew(*arguments)

    monkeypatch.setattr(heartbeat, "_renew", away_once)
    with beating(path):
        assert failed.wait(10)
        first, until = path.read_bytes(), time.monotonic() + 10
        while path.read_bytes() == first and time.monotonic() < until:
            time.sleep(0.02)
        assert path.read_bytes() != first
