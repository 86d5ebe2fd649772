"""Worker processes of this machine in place of Ray, for little work or where it does not start: the same results."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from multiprocessing import connection, get_context, parent_process
from multiprocessing.managers import BaseManager
from multiprocessing.process import BaseProcess
from typing import Any

from flywheel.core.errors import UsageError

Call = tuple[int, tuple[Any, ...], bool]  # index, arguments, whether a worker died of it before
_STARTING = threading.Lock()
_FILES, _OTHER_FILES = 9, 256  # that a process takes here, and that all else may
_END_SECONDS = 5.0  # until a process that has no call is killed
START_PAUSES = (0.0, 0.1, 0.5, 2.0, 0.0)  # seconds after each attempt to start one
NOT_THERE = (BrokenProcessPool, EOFError, ConnectionError)  # the process, or what it is forked from
_NONE_STARTS = (
    "processes of this machine end as soon as they start, perhaps for want of memory: free some, or pass fewer"
    " `--workers`, and run again; finished work is kept"
)


class LocalWorkers:
    """Up to `count` processes, as many as calls wait and as this process may have files open for.

    Each is a pool of its own, so that a process that dies names the call it died of. ready: a module that is loaded
    once, in the process that they are forked from; the first one of a program counts.
    """

    def __init__(self, count: int, ready: str = "") -> None:
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._count = count if most == resource.RLIM_INFINITY else max(1, min(count, (most - _OTHER_FILES) // _FILES))
        self._ready = ready
        self._pools: list[ProcessPoolExecutor] = []

    def _pool(self) -> ProcessPoolExecutor:
        """One process, which starts with its first call."""
        context = get_context("forkserver")
        context.set_forkserver_preload([self._ready] if self._ready else [])
        return ProcessPoolExecutor(1, context, initializer=_begin, initargs=(dict(os.environ),))

    def run_all(
        self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[int, Any | Exception]]:
        """(index, result) of `function(*call)` for each call, in order of completion.

        A call whose process dies is tried once more; if it dies again, the exception is its result. Errors inside the
        function are raised here.
        """
        queue: Iterator[Call] = ((index, call, False) for index, call in enumerate(calls))
        idle, again = list(range(self._count))[::-1], list[Call]()
        running: dict[Future[Any], tuple[int, Call]] = {}
        while True:
            while idle and (following := again.pop() if again else next(queue, None)) is not None:
                place = idle.pop()
                running[self._submit(place, function, *following[1])] = (place, following)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                place, (index, arguments, died) = running.pop(future)
                idle.append(place)
                try:
                    yield index, future.result()
                except BrokenProcessPool as error:
                    self._pools[place] = self._pool()
                    if died:
                        self._require(place)
                        yield index, error
                    else:
                        again.append((index, arguments, True))

    def _submit(self, place: int, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Send a call to a process, which may start with it. Errors: `UsageError` if none starts."""
        with _starting():
            while len(self._pools) <= place:
                self._pools.append(self._pool())
            for pause in START_PAUSES:
                try:
                    return self._pools[place].submit(_run, function, *arguments)
                except NOT_THERE:  # it ended while it had nothing to do, or what it is forked from did as it started
                    self._pools[place] = self._pool()
                    time.sleep(pause)  # what was killed takes its time to end, and another begins only then
        raise UsageError(_NONE_STARTS)

    def _require(self, place: int) -> None:
        """Check that a process lives without a call, so that a call is not blamed. Errors: `UsageError`."""
        try:
            self._submit(place, _nothing).result()
        except BrokenProcessPool as error:
            raise UsageError(_NONE_STARTS) from error

    def close(self) -> None:
        """End the processes, once they are done with what they do."""
        processes = self._processes()
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        deadline, waiting = time.monotonic() + _END_SECONDS, {p.sentinel for p in processes}
        while waiting and (left := deadline - time.monotonic()) > 0:
            waiting -= set(connection.wait(waiting, left))
        for process in processes:  # one that has begun a thread of its own waits for it
            if process.sentinel in waiting:
                process.kill()
        for pool in self._pools:
            pool.shutdown()

    def kill(self) -> None:
        """End the processes at once: the program stops, and what they do now is done again later."""
        for process in self._processes():
            process.kill()
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)

    def _processes(self) -> list[BaseProcess]:
        """Those that were started (`kill_workers` of Python 3.14 finds them so)."""
        return [process for pool in self._pools for process in list((pool._processes or {}).values())]


class _Shared(BaseManager):
    """A process with one object that all workers call."""


def _make(kind: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return kind(*arguments)


_Shared.register("make", _make)


@contextmanager
def shared_object(kind: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
    """`kind(*arguments)` in a process of its own: what it yields can be an argument of calls, and has its methods."""
    manager = _Shared(ctx=get_context("spawn"))
    with _starting():
        manager.start(initializer=_begin, initargs=(dict(os.environ),))
    try:
        yield manager.make(kind, arguments)  # type: ignore[attr-defined]
    finally:
        manager.shutdown()


@contextmanager
def _starting() -> Iterator[None]:
    """For starting processes: they ignore Ctrl-C, and do not run the user's script.

    Ctrl-C reaches all of a terminal, and the program ends them. A script without `if __name__ == "__main__"` would
    begin again in each of them, and one from standard input cannot be read a second time: what a call needs is never
    there, since calls and scorers are found by module.
    """
    main = sys.modules["__main__"]
    with _STARTING:
        before, spec = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}), getattr(main, "__spec__", None)
        main.__spec__ = ModuleSpec("__main__", None)  # what `multiprocessing` takes for a program that it leaves alone
        try:
            yield
        finally:
            main.__spec__ = spec
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _nothing() -> None:
    """A call that nothing can end."""


def _run(function: Callable[..., Any], *arguments: Any) -> Any:
    """In the process: what a call raises must reach the program, and must not be a wish to end the program."""
    try:
        return function(*arguments)
    except (SystemExit, KeyboardInterrupt):
        os._exit(1)  # of this process alone, as a task of Ray does
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        except Exception:  # noqa: BLE001 - whatever its class raises
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise


def _begin(environment: Mapping[str, str]) -> None:
    """In the new process: compute on one thread, as a task of Ray with one CPU does, and end when the program ends.

    What a call prints goes to standard error: standard output is the program's answer. environment: the program's, as
    it was when the pool was made; that of the process that this one is forked from is older.
    """
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    os.environ["OMP_NUM_THREADS"] = "1"  # before the libraries that read it are loaded
    with suppress(OSError):  # closed
        os.dup2(2, 1)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """In a thread of a process that was started here: end it with the program, which closes nothing if it is killed."""
    if parent := parent_process():
        parent.join()
    os._exit(1)
