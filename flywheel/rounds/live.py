"""A run at work as others see it: its step, how far it is, its last lines; and the request that it stops.

The run writes a small file every few seconds and looks for a request to stop in another: both lie in the workspace, so
they serve any host that shares it. A run that is asked to stop sends itself the signal of Ctrl-C: it ends in order, and
the same command resumes it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flywheel.core import hashes
from flywheel.core.errors import UsageError
from flywheel.core.files import discard, read_json, write_bytes
from flywheel.core.heartbeat import SILENT_SECONDS, glance
from flywheel.core.ledger import Ledger
from flywheel.core.progress import Progress
from flywheel.core.storage import failures, remote
from flywheel.core.text import blank
from flywheel.core.workspace import Workspace
from flywheel.rounds import lease

_LOOK_SECONDS = 1.0  # between two looks for a request to stop
_WRITE_SECONDS, _WRITE_REMOTE_SECONDS = 2.0, 10.0  # at least, between two reports; a look on S3 is as rare


@dataclass(frozen=True)
class Live:
    """A run: who holds the workspace, and what it last reported.

    round: 0 outside of rounds. done, total: of the step, None: it does not count. seconds_left: of the step. lines: the
    last ones it printed. asked_by: who asked it to stop, empty: nobody. state: `working`, or `gone`: its process ended
    without a word, or was silent for too long on another host.
    """

    run: int
    host: str
    pid: int
    began: datetime
    at: datetime
    round: int = 0
    step: str = ""
    done: int | None = None
    total: int | None = None
    note: str = ""
    seconds_left: float | None = None
    lines: tuple[str, ...] = ()
    asked_by: str = ""
    state: str = "working"


class Report:
    """What a run says of itself while it works; `round` is set by the run."""

    def __init__(self, workspace: Workspace, run: int, progress: Progress) -> None:
        self.workspace, self.progress, self.round, self.asked_by = workspace, progress, 0, ""
        now = datetime.now(UTC)
        self._last = Live(run, socket.gethostname(), os.getpid(), now, now)

    def now(self) -> Live:
        """The report of this moment."""
        told = self.progress.told
        values = {k: told[k] for k in ("step", "done", "total", "note", "seconds_left")}
        at, asked, lines = datetime.now(UTC), self.asked_by, tuple(self.progress.lines)
        self._last = replace(self._last, **values, lines=lines, at=at, round=self.round, asked_by=asked)
        return self._last

    def write(self) -> None:
        """Write it; what the storage refuses is written next time."""
        with suppress(*failures()):
            write_bytes(_place(self.workspace), json.dumps(asdict(self.now()), default=str).encode(), recorded=False)

    def heed(self) -> bool:
        """Stop this process if somebody asked for it; False if nobody did."""
        asked = _asked(self.workspace, self._last.run)
        if asked is None or self.asked_by:
            return False
        self.asked_by = str(asked["by"])
        self.progress.note(f"{asked['by']} asked this run to stop: {asked['why']}")
        self.write()
        os.kill(os.getpid(), _signal())
        return True


@contextmanager
def reported(workspace: Workspace, run: int, progress: Progress) -> Iterator[Report]:
    """Report the run of that number while the block runs, and stop this process if somebody asks for it."""
    report, done = Report(workspace, run, progress), threading.Event()
    for place in (_place(workspace), _bell(workspace)):
        hashes.note(place, hashes.LIVING)
    report.write()
    far = remote(workspace.root)
    between = _WRITE_REMOTE_SECONDS if far else _WRITE_SECONDS

    def watch() -> None:
        written = time.monotonic()
        while not done.wait(between if far else _LOOK_SECONDS):
            with suppress(*failures()):
                report.heed()
            if time.monotonic() - written >= between:
                report.write()
                written = time.monotonic()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield report
    finally:
        done.set()
        thread.join()
        with suppress(*failures()):
            discard(_place(workspace))


@dataclass
class Watch:
    """Looks at a workspace's run; remembers when a run on another host last changed its sign of life."""

    workspace: Workspace
    _sign: bytes = b""
    _since: float = field(default_factory=time.monotonic)

    def look(self) -> Live | None:
        """The run that holds the workspace; None if none does. Reads two small files."""
        found = _read(self.workspace)
        if found is None:
            return None
        alive, sign = glance(lease.heartbeat(self.workspace))
        if sign != self._sign:
            self._sign, self._since = sign, time.monotonic()
        if alive is None:
            alive = time.monotonic() - self._since < SILENT_SECONDS
        if not alive:
            return replace(found, state="gone")
        asked = None if found.asked_by else _asked(self.workspace, found.run)
        return replace(found, asked_by=str(asked["by"])) if asked else found


def ask_to_stop(workspace: Workspace, *, by: str, why: str) -> Mapping[str, Any]:
    """Ask the run that works on the workspace, on whatever host, to stop; returns its row. It looks every few seconds.

    Errors: `UsageError` if none works, it was asked before, or `by` or `why` is empty.
    """
    if blank(by) or blank(why):
        raise UsageError("say who asks, and why: the ledger records both")
    row = lease.holder(Ledger(workspace, "runs").rows())
    if row is None or glance(lease.heartbeat(workspace))[0] is False:
        raise UsageError("no run works on this workspace: there is nothing to stop")
    asked = {"by": by.strip(), "why": why.strip()}
    columns = {k: row[k] for k in ("version", "host", "pid", "started")}
    note = json.dumps(asked, ensure_ascii=False)
    if not Ledger(workspace, "runs").append(
        [columns | {"kind": lease.STOP, "job": note}], key=f"run/{row['version']}/{lease.STOP}"
    ):
        raise UsageError("this run was asked to stop before: it ends within a few seconds, else use `flywheel unlock`")
    bell = json.dumps(asked | {"run": row["version"]}, ensure_ascii=False)
    write_bytes(_bell(workspace), bell.encode(), recorded=False)
    return row


def _place(workspace: Workspace) -> Path:
    return workspace.path("runs", "progress.json")


def _bell(workspace: Workspace) -> Path:
    return workspace.path("runs", "stop.json")


def _asked(workspace: Workspace, run: int) -> Mapping[str, Any] | None:
    """The request that this run stops; None if there is none."""
    bell = _bell(workspace)
    if not bell.exists():
        return None
    asked = read_json(bell)
    return asked if asked.get("run") == run else None


def _read(workspace: Workspace) -> Live | None:
    """The last report; None if there is none, or it is just being removed."""
    try:
        values = read_json(_place(workspace))
        times = {k: datetime.fromisoformat(values[k]) for k in ("began", "at")}
        return Live(**values | times | {"lines": tuple(values["lines"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _signal() -> signal.Signals:
    """Ctrl-C, where it is not ignored: a notebook's kernel survives it, and Prefect does not take it for its own."""
    handled = [s for s in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(s))]
    return handled[0] if handled else signal.SIGTERM
