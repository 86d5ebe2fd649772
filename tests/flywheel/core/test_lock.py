"""The lock on S3: one holder, renewed while it works, taken over when its holder is gone."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from flywheel.core import lock
from flywheel.core.files import write_bytes
from flywheel.core.lock import locked
from flywheel.core.storage import located


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_lock_is_held_by_one(s3: str):
    path, inside, most = located(f"{s3}/w/.lock"), [], []

    def work() -> None:
        for _ in range(3):
            with locked(path):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.01)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 9 and not path.exists()


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_lock_is_waited_for_only_so_long(place: str, tmp_path: Path, request: pytest.FixtureRequest):
    path = tmp_path / ".lock" if place == "folder" else located(f"{request.getfixturevalue('s3')}/w/.lock")
    with locked(path):
        for seconds in (0.0, 0.5):
            began = time.monotonic()
            with pytest.raises(TimeoutError, match="another process holds the lock"), locked(path, seconds=seconds):
                raise AssertionError("this must not run")
            assert time.monotonic() - began >= seconds
    with locked(path, seconds=0.0):
        pass


def test_a_lock_outlives_its_holders_patience_only_while_it_is_renewed(s3: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "_SILENT_SECONDS", 2.0)
    monkeypatch.setattr(lock, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(lock, "_RENEW_SECONDS", 0.2)
    path, order = located(f"{s3}/w/.lock"), []

    def wait() -> None:
        with locked(path):
            order.append("taken")

    with locked(path):
        other = threading.Thread(target=wait)
        other.start()
        time.sleep(3)
        order.append("released")
    other.join()
    assert order == ["released", "taken"]

    write_bytes(path, b"somebody who was killed")
    wait()
    assert order[-1] == "taken" and not path.exists()


def test_a_holder_that_stood_still_is_told(s3: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "_SILENT_SECONDS", 0.2)
    monkeypatch.setattr(lock, "_POLL_SECONDS", 0.05)
    path = located(f"{s3}/w/.lock")
    with pytest.raises(RuntimeError, match="took over the lock"), locked(path):
        with locked(path):  # waits, then takes over: the holder renews only every ten seconds
            pass


def test_a_lock_is_renewed_after_the_storage_was_away(monkeypatch: pytest.MonkeyPatch):
    """S3's client raises errors of its own, which are no `OSError`."""
    from botocore.exceptions import ConnectionClosedError

    done, renewed = threading.Event(), list[bytes]()

    def away_once(_: object) -> tuple[bytes, str]:
        renewed.append(b"asked")
        if len(renewed) == 1:
            raise ConnectionClosedError(endpoint_url="http://127.0.0.1")
        return b"me", "tag"

    def replaced(_: object, data: bytes, tag: str) -> bool:
        done.set()
        return data.startswith(b"me") and tag == "tag"

    monkeypatch.setattr(lock, "_RENEW_SECONDS", 0.01)
    monkeypatch.setattr(lock, "read_tagged", away_once)
    monkeypatch.setattr(lock, "replace", replaced)
    threading.Thread(target=lock._renew, args=(Path("lock"), b"me", done), daemon=True).start()
    assert done.wait(10)
