"""Ctrl-C and SIGTERM: one sentence, exit code 130 or 143, and no process of ours left after five seconds."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from flywheel.cli.panels import PanelGroup

if TYPE_CHECKING:
    import psutil

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_TIDY_SECONDS = 2.5  # for closing what is open; then our processes are killed
_LAST_SECONDS = 1.0  # after that, until this process ends itself


class Stop:
    """The signal that this process received, and the processes that it had started by then."""

    def __init__(self) -> None:
        self.signum = 0
        self.processes: list[psutil.Process] = []

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal: the first one unwinds the program, a second one ends it at once."""
        if self.signum:
            self.now()
        self.signum = signum
        self._look()
        threading.Thread(target=self._watch, daemon=True).start()
        raise KeyboardInterrupt

    @property
    def sentence(self) -> str:
        """What the user is told."""
        return f"stopped by {_NAMES[signal.Signals(self.signum)]}: finished work is kept, the same command resumes"

    def end(self) -> int:
        """End what still runs of our processes; the exit code of this one."""
        import psutil

        self._look()
        _, alive = psutil.wait_procs(self.processes, timeout=_LAST_SECONDS)
        for process in alive:
            with suppress(psutil.Error):
                process.kill()
        return 128 + self.signum

    def now(self) -> NoReturn:
        """Kill our processes and end, without tidying up."""
        import psutil

        self._look()
        for process in self.processes:
            with suppress(psutil.Error):
                process.kill()
        with suppress(OSError):
            os.write(2, f"{self.sentence}\n".encode())
        os._exit(128 + self.signum)

    def _look(self) -> None:
        """Remember descendants: those whose parent ends first can no longer be found."""
        import psutil

        with suppress(psutil.Error):
            found = psutil.Process().children(recursive=True)
            self.processes += [p for p in found if p not in self.processes]

    def _watch(self) -> None:
        time.sleep(_TIDY_SECONDS)
        import psutil

        self._look()
        for process in self.processes:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(_LAST_SECONDS)
        self.now()


_stop = Stop()


@contextmanager
def stoppable() -> Iterator[None]:
    """Handle SIGINT and SIGTERM inside the block; a signal that is ignored stays ignored, as under nohup."""
    global _stop
    _stop = Stop()
    main = threading.current_thread() is threading.main_thread()
    before = {s: signal.getsignal(s) for s in _NAMES} if main else {}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(signum, _stop)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


class Group(PanelGroup):
    """The command's verbs; a signal ends whichever runs."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        try:
            result = super().invoke(ctx)
        except BaseException:
            if not _stop.signum:
                raise
            result = None
        if _stop.signum:
            code = _stop.end()
            print(_stop.sentence, file=sys.stderr, flush=True)
            raise typer.Exit(code)
        return result
