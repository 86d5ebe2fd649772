"""Peak resident memory of this process and its descendants, sampled in a thread."""

from __future__ import annotations

import resource
import threading
from typing import Any

import psutil


class PeakMemory:
    """Context manager; `peak` is the largest sum over the process tree, in bytes.

    The sum is of proportional set sizes, which count shared pages once; of resident set sizes where the system does not
    report the former.
    """

    def __init__(self, every: float = 3.0) -> None:
        self.peak = 0
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, _tree())

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self.peak = max(self.peak, _tree())


def _tree() -> int:
    me = psutil.Process()
    total = 0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += getattr(process.memory_full_info(), "pss", 0) or process.memory_info().rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # the process ended meanwhile
    return total


class Allowance:
    """Context manager within which this process may take at most `size` bytes of memory more than it has.

    What needs more gets a `MemoryError`, or whatever its library makes of a failed allocation. Several threads may be
    inside at once; their allowances add up. Does nothing where the system has no such limit.
    """

    _lock = threading.Lock()
    _inside = 0
    _before: tuple[int, int] = (0, 0)

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> Allowance:
        with self._lock:
            if Allowance._inside == 0:
                Allowance._before = resource.getrlimit(resource.RLIMIT_DATA)
            Allowance._inside += 1
            self._set()
        return self

    def __exit__(self, *exc: Any) -> None:
        with self._lock:
            Allowance._inside -= 1
            if Allowance._inside == 0:
                resource.setrlimit(resource.RLIMIT_DATA, Allowance._before)

    def _set(self) -> None:
        taken = _private()
        soft, hard = Allowance._before
        if taken is None:
            return
        wanted = taken + self.size
        for bound in (soft, hard):
            wanted = wanted if bound == resource.RLIM_INFINITY else min(wanted, bound)
        now = resource.getrlimit(resource.RLIMIT_DATA)[0]
        if Allowance._inside == 1 or now == resource.RLIM_INFINITY or wanted > now:
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def _private() -> int | None:
    """Bytes of writable memory of this process's own, as the limit counts them; None where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[5]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return None
