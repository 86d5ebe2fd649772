"""Worker processes of this machine, for when Ray does not start: the same calls, the same results."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.managers import BaseManager
from typing import Any

Call = tuple[int, tuple[Any, ...], bool]  # index, arguments, whether a worker died of it before


class LocalWorkers:
    """`count` processes. Each is a pool of its own, so that a process that dies names the call it died of."""

    def __init__(self, count: int) -> None:
        self._pools = [_pool() for _ in range(count)]

    def run_all(
        self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any | Exception]]:
        """(index, result) of `function(*call)` for each call, in order of completion.

        A call whose process dies is tried once more; if it dies again, the exception is its result. Errors inside the
        function are raised here.
        """
        queue: Iterator[Call] = ((index, call, False) for index, call in enumerate(calls))
        idle, again = list(range(len(self._pools))), list[Call]()
        running: dict[Future[Any], tuple[int, Call]] = {}
        while True:
            while idle and (following := again.pop() if again else next(queue, None)) is not None:
                place = idle.pop()
                with _without_ctrl_c():  # the call may start a process
                    running[self._pools[place].submit(function, *following[1])] = (place, following)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                place, (index, arguments, died) = running.pop(future)
                idle.append(place)
                try:
                    yield index, future.result()
                except BrokenProcessPool as error:
                    self._pools[place] = _pool()
                    if died:
                        yield index, error
                    else:
                        again.append((index, arguments, True))

    def close(self) -> None:
        """End the processes, once they are done with what they do."""
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)

    def kill(self) -> None:
        """End the processes at once: the program stops, and what they do now is done again later."""
        for pool in self._pools:
            for process in list((pool._processes or {}).values()):  # as `kill_workers` of Python 3.14 does
                process.kill()
            pool.shutdown(cancel_futures=True)


class _Shared(BaseManager):
    """A process with one object that all workers call."""


def _make(kind: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return kind(*arguments)


_Shared.register("make", _make)


@contextmanager
def shared_object(kind: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
    """`kind(*arguments)` in a process of its own: what it yields can be an argument of calls, and has its methods."""
    manager = _Shared(ctx=get_context("spawn"))
    with _without_ctrl_c():
        manager.start(initializer=_begin)
    try:
        yield manager.make(kind, arguments)  # type: ignore[attr-defined]
    finally:
        manager.shutdown()


def _pool() -> ProcessPoolExecutor:
    """One process, which starts with its first call."""
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes started in this block ignore Ctrl-C, which reaches all of a terminal: the program ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """In the new process: compute on one thread, as a task of Ray with one CPU does, and end when the program ends."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before the libraries that read it are loaded
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """In a thread of a process that was started here: end it with the program, which closes nothing if it is killed."""
    if parent := parent_process():
        parent.join()
    os._exit(1)
