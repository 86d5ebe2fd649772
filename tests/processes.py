"""Which processes still run, a moment after whatever should have ended them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress

import psutil


def running(processes: Iterable[int | psutil.Process], *, after: float = 10.0) -> set[int]:
    """Identifiers of those that still run after `after` seconds, or none as soon as none does.

    One that has ended runs no more, though nobody may have asked how it ended.
    """
    deadline, left = time.monotonic() + after, set(processes)
    while True:
        left = {process for process in left if _runs(process)}
        if not left or time.monotonic() > deadline:
            return {process if isinstance(process, int) else process.pid for process in left}
        time.sleep(0.05)


def _runs(process: int | psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        known = psutil.Process(process) if isinstance(process, int) else process
        return known.is_running() and known.status() != psutil.STATUS_ZOMBIE
    return False
