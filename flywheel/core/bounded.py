"""Run a function in a child process that has limits of memory, processor time and wall time."""

from __future__ import annotations

import math
import multiprocessing
import pickle
import resource
import signal
import time
from collections.abc import Callable
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from flywheel.core.errors import UsageError
from flywheel.core.local_workers import NOT_THERE, START_PAUSES

P = ParamSpec("P")
R = TypeVar("R")

_GRACE = 2.0  # seconds after its time until a child ends itself, in case this process is gone
_BUSY = "this machine is too busy to answer: ask again"
_START_SECONDS = 60.0  # until a child has started: the first one imports what the function needs


class TooMuch(UsageError):
    """The function needed more time or memory than it was given."""


def bounded(
    function: Callable[P, R], *, seconds: float, memory: int, answer: int, processors: int = 2, preload: tuple[str, ...]
) -> Callable[P, R]:
    """The function, run in a child process at each call; arguments and result are pickled.

    seconds: wall time; the child is then killed. memory, answer: bytes of private memory, and of the result.
    processors: how many may be busy all the time. preload: modules that children share. Errors: `TooMuch`; `UsageError`
    of the function as it is, any other error as a `UsageError` that names it.
    """

    def call(*arguments: P.args, **named: P.kwargs) -> R:
        limits = (seconds, memory, answer, processors)
        child, here = _started(_server(preload), limits, function, arguments, named)
        try:
            if not here.poll(_START_SECONDS):
                raise TooMuch(_BUSY)
            here.recv()  # it has started
            if not here.poll(seconds):
                raise TooMuch(f"this took longer than {seconds:g} s: ask for less")
            succeeded, data = here.recv()
        except EOFError as error:
            raise TooMuch(f"this needed more than {memory >> 20} MiB of memory: ask for less") from error
        finally:
            child.kill()
            child.join()
            here.close()
        if not succeeded:
            raise data
        result: R = pickle.loads(data)  # noqa: S301 - of our own child
        return result

    return call


def _started(context: Any, *arguments: Any) -> tuple[Any, Connection]:
    """(a child that runs `_child`, the end of its pipe here). Errors: `TooMuch` if none starts."""
    for pause in START_PAUSES:
        here, there = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(there, *arguments), daemon=True)
        try:
            child.start()
            return child, here
        except NOT_THERE:  # what it is forked from was killed
            here.close()
            time.sleep(pause)
        finally:
            there.close()
    raise TooMuch(_BUSY)


@lru_cache(maxsize=4)
def _server(preload: tuple[str, ...]) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *preload])
    return context


def _child(pipe: Connection, limits: tuple[float, int, int, int], function: Any, arguments: Any, named: Any) -> None:
    seconds, memory, answer, processors = limits
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE)
    spent = math.ceil(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
    budget = spent + math.ceil(seconds * processors) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (budget, budget))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send(None)
    try:
        data = pickle.dumps(function(*arguments, **named))
        if len(data) > answer:
            raise TooMuch(f"the answer has more than {answer >> 20} MiB: ask for less")
        pipe.send((True, data))
    except MemoryError:
        pipe.send((False, TooMuch(f"this needed more than {memory >> 20} MiB of memory: ask for less")))
    except UsageError as error:
        pipe.send((False, error))
    except Exception as error:  # noqa: BLE001 - it must not end the server's page
        pipe.send((False, UsageError(f"{type(error).__name__}: {error}")))
