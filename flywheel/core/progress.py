"""Progress of a run: one line per step with a bar, on stderr, so that stdout carries only data."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class Progress:
    """Prints steps and how far they are. A terminal gets a bar that is redrawn, a file a line every few seconds.

    The running step calls `progress(done, total, note)`; without a total, only the count is shown.
    """

    def __init__(self, stream: TextIO | None = None, *, every: float = 5.0) -> None:
        self.stream = stream or sys.stderr
        self.every = every
        self.live = self.stream.isatty()
        self.start = time.monotonic()
        self._label = ""
        self._last = 0.0
        self._open = False

    @contextmanager
    def step(self, label: str) -> Iterator[None]:
        """Announce a step, and print how long it took when it ends without error."""
        self._label, self._last, began = label, time.monotonic(), time.monotonic()
        self._print(f"{self._clock()} {label} …", redraw=True)
        yield
        self._print(f"{self._clock()} {label}: {time.monotonic() - began:.1f} s", redraw=False)

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        now = time.monotonic()
        if now - self._last < (0.1 if self.live else self.every):
            return
        self._last = now
        share = f"{done}/{total} {_bar(done / total)}" if total else str(done)
        self._print(f"{self._clock()} {self._label} {share} {note}".rstrip(), redraw=True)

    def say(self, text: str) -> None:
        """Print a separate line."""
        self._print(f"{self._clock()} {text}", redraw=False)

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self.start)
        return f"[{seconds // 60:02d}:{seconds % 60:02d}]"

    def _print(self, text: str, *, redraw: bool) -> None:
        if self.live:
            self.stream.write("\r\x1b[K" + text + ("" if redraw else "\n"))
        else:
            self.stream.write(text + "\n")
        self.stream.flush()


def _bar(share: float, width: int = 20) -> str:
    full = min(width, int(share * width))
    return "█" * full + "░" * (width - full)


def plain_step(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the function: the step of a run without an orchestrator."""
    return function(*args, **kwargs)
