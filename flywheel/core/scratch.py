"""Scratch folders of this machine. Those that a killed process leaves are removed when the next one is made.

They lie in the system's temporary folder, also for workspaces on S3 and those that are only read: set TMPDIR for
another one. A process holds a lock on each of its own, which the system lets go of when it ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

_PREFIX = "flywheel-"


class Scratch:
    """An empty local folder that goes with the object: a context manager that yields its path, or kept as it is."""

    def __init__(self) -> None:
        self.path, held = _make()
        self._remove = weakref.finalize(self, _remove, self.path, held)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder, if it is still there."""
        self._remove()


def _make() -> tuple[Path, int | None]:
    """(a new folder, what holds its lock); first removes those that nobody holds."""
    place = _place()
    if place is None:
        return Path(tempfile.mkdtemp(prefix=_PREFIX)), None
    turn = os.open(place, os.O_RDONLY)
    try:
        _lock(turn, wait=True)  # else one that was just made would be taken for one that nobody holds
        left = [(path, held) for path in place.iterdir() if (held := _held(path)) is not None]
        folder = Path(tempfile.mkdtemp(prefix="", dir=place))
        mine = _held(folder)
    finally:
        os.close(turn)
    for path, held in left:
        _remove(path, held)
    return folder, mine


def _place() -> Path | None:
    """The folder of all scratch folders of this user; None if somebody else has made it."""
    place = Path(tempfile.gettempdir(), f"{_PREFIX}{os.getuid()}")
    place.mkdir(mode=0o700, exist_ok=True)
    state = place.lstat()
    return place if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() else None


def _held(folder: Path) -> int | None:
    """Lock a folder; None if a process that lives has locked it, or if locks are unknown there."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        if _lock(descriptor, wait=False):
            return descriptor
        os.close(descriptor)
    return None


def _lock(descriptor: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove(folder: Path, held: int | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if held is not None:
        os.close(held)
