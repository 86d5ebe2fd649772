"""Peak resident memory of this process and its descendants, sampled in a thread."""

from __future__ import annotations

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
