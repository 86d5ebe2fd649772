"""Progress of a run: one line per step with a bar, on stderr, so that stdout carries only data.

`FLYWHEEL_LOG_FORMAT=json` (`--log-format json`) writes one JSON object a line instead, for log collectors.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

FORMAT = "FLYWHEEL_LOG_FORMAT"
FORMATS = ("text", "json")
_LINES = 12  # that are kept for those who look at a run from outside
_NOTHING: dict[str, Any] = {"done": None, "total": None, "note": "", "seconds_left": None}


class Progress:
    """Prints steps and how far they are. A terminal gets a bar that is redrawn, a file a line every few seconds.

    The running step calls `progress(done, total, note)`; without a total, only the count is shown. format: text or
    json; None: as the environment says.
    """

    def __init__(self, stream: TextIO | None = None, *, every: float = 5.0, format: str | None = None) -> None:
        self.stream = stream or sys.stderr
        self.every = every
        self.json = (format or os.environ.get(FORMAT)) == "json"
        self.live = self.stream.isatty() and not self.json
        self.start = time.monotonic()
        self._label = ""
        self._last = 0.0
        self._first: tuple[float, int, int | None] = (0.0, 0, None)  # time, count and total of the first report
        self._listeners: list[Callable[[str], object]] = []
        self.told: dict[str, Any] = {"step": ""} | _NOTHING  # what the running step last said
        self.lines: deque[str] = deque(maxlen=_LINES)  # the last ones that stay, with the clock of the run

    @contextmanager
    def step(self, label: str) -> Iterator[None]:
        """Announce a step, and print how long it took when it ends without error."""
        self._label, self._last, began = label, time.monotonic(), time.monotonic()
        self._first = (began, 0, None)
        self.told = {"step": label} | _NOTHING
        self._print("begin", f"{label} …", {}, redraw=True)
        yield
        self._label, seconds = label, time.monotonic() - began
        self._print("end", f"{label}: {seconds:.1f} s", {"seconds": round(seconds, 3)}, redraw=False)

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        now = time.monotonic()
        if total != self._first[2] or done < self._first[1]:  # a resumed step begins anywhere: its rate is measured
            self._first = (now, done, total)
        left = self._left(now, done)
        counted = {"done": int(done), "total": total and int(total)}
        self.told = {"step": self._label, **counted, "note": note, "seconds_left": left}
        if now - self._last < (0.1 if self.live else self.every):
            return
        self._last = now
        share = f"{done}/{total} {_bar(done / total)}" if total else str(done)
        eta = "" if left is None else f", {duration(left)} left"
        values = {"done": done, "total": total, "note": note, "seconds_left": left and round(left, 1)}
        self._print("progress", f"{self._label} {share} {note}".rstrip() + eta, values, redraw=True)

    def say(self, text: str) -> None:
        """Print a separate line."""
        self._print("message", text, {"text": text}, redraw=False)

    def note(self, text: str) -> None:
        """Print a separate line from another thread: listeners, which may belong to the step's, do not hear it."""
        self._print("note", text, {"text": text}, redraw=False)

    @contextmanager
    def heard_by(self, listener: Callable[[str], object]) -> Iterator[None]:
        """Also pass every line that stays, but not the bars in between, to the listener."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def _left(self, now: float, done: int) -> float | None:
        """Seconds until the total is reached, at the rate since the first report; None before there are two."""
        since, first, total = self._first
        if not total or done <= first:
            return None
        return max(0.0, (now - since) / (done - first) * (total - done))

    def _print(self, event: str, text: str, values: dict[str, Any], *, redraw: bool) -> None:
        if event in ("message", "end", "note"):
            self.lines.append(f"{self._clock()} {text}")
        if event in ("message", "end"):
            for listener in self._listeners:
                listener(text)
        if self.json:
            entry = {"at": datetime.now(UTC).isoformat(), "event": event, "step": self._label, **values}
            self.stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
        elif self.live:
            self.stream.write(f"\r\x1b[K{self._clock()} {text}" + ("" if redraw else "\n"))
        else:
            self.stream.write(f"{self._clock()} {text}\n")
        self.stream.flush()

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self.start)
        return f"[{seconds // 60:02d}:{seconds % 60:02d}]"


def duration(seconds: float) -> str:
    """A time span for people: 40 s, 5 min, 3.2 h."""
    if seconds < 90:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bar(share: float, width: int = 20) -> str:
    full = min(width, int(share * width))
    return "█" * full + "░" * (width - full)


def plain_step(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the function: the step of a run without an orchestrator."""
    return function(*args, **kwargs)
