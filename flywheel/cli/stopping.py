"""Ctrl-C and SIGTERM: one sentence, exit code 130 or 143, and no process of ours left after five seconds."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import psutil

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_TIDY_SECONDS = 2.5  # for closing what is open; then our processes are killed
_AGAIN_SECONDS = 0.02  # until Python has left the code that drops exceptions
_LAST_SECONDS = 1.0  # after that, until this process ends itself


class Stop:
    """The signal that this process received, and the processes that it had started by then."""

    def __init__(self) -> None:
        self.signum = 0
        self.told = False
        self.hook = sys.unraisablehook  # as it was before
        self.lost = False  # the exception of the signal, in code whose exceptions Python drops
        self.ending = False  # the program is unwound
        self.processes: list[psutil.Process] = []

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal: the first one unwinds the program, a second one ends it at once."""
        if self.lost:
            self.lost = False
            if self.ending:  # something else has unwound the program meanwhile, such as a server that died
                return
            raise KeyboardInterrupt
        if self.signum:
            self.now()
        self.signum = signum
        self._look()
        threading.Thread(target=self._watch, daemon=True).start()
        raise KeyboardInterrupt

    def dropped(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Raise again what was raised inside a destructor or the callback of a weak reference, such as importlib's."""
        if self.signum and issubclass(unraisable.exc_type, KeyboardInterrupt):
            self.lost = True
            again = threading.Timer(_AGAIN_SECONDS, _thread.interrupt_main, (signal.Signals(self.signum),))
            again.daemon = True
            again.start()
        else:
            self.hook(unraisable)

    @property
    def sentence(self) -> str:
        """What the user is told."""
        return f"stopped by {_NAMES[signal.Signals(self.signum)]}: finished work is kept, the same command resumes"

    def end(self) -> int:
        """End what still runs of our processes; the exit code of this one."""
        self.ending = True
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

        self._look(tracker=True)
        for process in self.processes:
            with suppress(psutil.Error):
                process.kill()
        with suppress(OSError):
            os.write(2, f"{self.sentence}\n".encode())
        os._exit(128 + self.signum)

    def _look(self, *, tracker: bool = False) -> None:
        """Remember descendants: those whose parent ends first can no longer be found.

        tracker: also the process in which Python counts semaphores. It ends by itself when this one has; killed before
        that, it is started again by whoever gives a semaphore back, and says so in traces.
        """
        with suppress(Exception):  # whatever was interrupted, even the import of psutil itself
            import psutil

            counting = sys.modules.get("multiprocessing.resource_tracker")
            own = None if counting is None or tracker else counting._resource_tracker._pid
            found = [p for p in psutil.Process().children(recursive=True) if p.pid != own]
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


_stop: Stop | None = None  # of the block that runs


def stopped() -> int:
    """The exit code, after ending all processes and telling the user, if a signal stopped this program; else 0."""
    if _stop is None or not _stop.signum:
        return 0
    code = _stop.end()
    if not _stop.told:
        _stop.told = True
        print(_stop.sentence, file=sys.stderr, flush=True)
    return code


@contextmanager
def stoppable() -> Iterator[None]:
    """End the program at SIGINT and SIGTERM inside the block; an ignored signal stays ignored, as under nohup."""
    global _stop
    if _stop is not None:
        yield
        return
    _stop = stop = Stop()
    main = threading.current_thread() is threading.main_thread()
    before = {s: signal.getsignal(s) for s in _NAMES} if main else {}
    sys.unraisablehook = stop.dropped
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(signum, stop)
    try:
        yield
    except BaseException:
        if not stop.signum:
            raise
    finally:
        code = stopped()
        for signum, handler in before.items():
            signal.signal(signum, handler)
        sys.unraisablehook = stop.hook
        _stop = None
    if code:
        sys.exit(code)
