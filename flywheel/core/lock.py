"""A lock between processes: a file lock of the operating system, or on S3 an object that its holder renews."""

from __future__ import annotations

import fcntl
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from flywheel.core.storage import create, failures, read_tagged, remote, replace

if TYPE_CHECKING:
    from flywheel.core.storage import RemotePath

_SILENT_SECONDS = 60.0  # a holder that has not renewed for this long counts as dead
_RENEW_SECONDS = 10.0
_POLL_SECONDS = 0.3


@contextmanager
def locked(path: Path, *, seconds: float = float("inf")) -> Iterator[None]:
    """Wait until no other process holds the lock at `path`, for at most so many seconds, then hold it.

    Errors: `TimeoutError` if it is held for longer; `RuntimeError` at the end if this process stalled for so long that
    another one took over the lock.
    """
    until = time.monotonic() + seconds
    if remote(path):
        with _held(path, until):
            yield
        return
    with path.open("w") as file:
        while not _flocked(file, wait=seconds == float("inf")):
            _wait(path, until)
        yield


def _flocked(file: IO[str], *, wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(path: Path, until: float) -> None:
    if time.monotonic() >= until:
        raise TimeoutError(f"another process holds the lock {path}")
    time.sleep(_POLL_SECONDS)


@contextmanager
def _held(path: RemotePath, until: float) -> Iterator[None]:
    me, done = uuid.uuid4().hex.encode(), threading.Event()
    _take(path, me, until)
    renewal = threading.Thread(target=_renew, args=(path, me, done), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        done.set()
        renewal.join()
        mine = _is_mine(path, me)
        if mine:
            path.unlink(missing_ok=True)
    if not mine:
        raise RuntimeError(f"another process took over the lock {path}: run again, finished work is not repeated")


def _take(path: RemotePath, me: bytes, until: float) -> None:
    """Create the object, or replace one that nobody renews while we watch, by compare-and-swap."""
    last_tag, since = "", time.monotonic()
    while True:
        with suppress(FileExistsError):
            create(path, me)
            return
        with suppress(FileNotFoundError):
            content, tag = read_tagged(path)
            if content.startswith(me):
                return  # we created it: the answer was lost, and the repeated request refused
            if tag != last_tag:
                last_tag, since = tag, time.monotonic()
            elif time.monotonic() - since > _SILENT_SECONDS and replace(path, me, tag):
                return
        _wait(path, until)


def _renew(path: RemotePath, me: bytes, done: threading.Event) -> None:
    while not done.wait(_RENEW_SECONDS):
        with suppress(*failures()):  # try again next time
            content, tag = read_tagged(path)
            if content.startswith(me):
                replace(path, me + b" %d" % time.time_ns(), tag)


def _is_mine(path: RemotePath, me: bytes) -> bool:
    try:
        return read_tagged(path)[0].startswith(me)
    except FileNotFoundError:
        return False
