"""Ray: one plain task per shard. A local Ray is started when needed, and stopped by the caller that started it.

Workers of a cluster receive this program's own code. Its nodes need the same dependencies, and must see the workspace
at the same path.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flywheel.core.environment import raise_environment_error
from flywheel.core.errors import UsageError

_SHIPPED = ("curation", "flywheel", "training")  # packages that tasks and training workers import
_NODES_LOST = 5  # nodes that one task may lose: a lost node is not the fault of the task's data
_STOP_SECONDS = 1.0  # until processes of a Ray that was shut down are killed
_TRIES = 3  # Ray gives up after 30 seconds, which a busy machine needs
_OBJECT_STORE = 256 * 1024 * 1024  # bytes; tasks return numbers and file names, never pictures


@contextmanager
def cluster(workers: int = 2) -> Iterator[None]:
    """A running Ray: the one already connected, the one at RAY_ADDRESS, or a local one with `workers` CPUs.

    A local Ray that does not start in time is tried again. Errors: `UsageError` when Ray does not start, or is lost
    while in use.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    if os.environ.get("RAY_ADDRESS"):
        options |= {"runtime_env": {"py_modules": _code(), "excludes": ["**/__pycache__"]}}
    else:
        options |= {"address": "local", "num_cpus": workers, "include_dashboard": False}
        options |= {"object_store_memory": _OBJECT_STORE}
        # Otherwise the driver waits for its first workers to register, forever if one of them dies before it does.
        options |= {"_system_config": {"prestart_worker_first_driver": False}}
    tries = _TRIES if "address" in options else 1
    while not _started(options, last=tries == 1):
        tries -= 1
    try:
        yield
    except RayTaskError:  # an error in a task's own code
        raise
    except RayError as error:
        reason = str(error).partition(". ")[0]
        raise UsageError(f"Ray was lost: run again, finished work is kept ({reason})") from error
    finally:
        _stop()


def _stop() -> None:
    """Disconnect from Ray, and end a local one for good: its agents outlive it by up to half a minute."""
    import psutil
    import ray

    mine = [p for p in psutil.Process().children(recursive=True) if _is_of_ray(_command(p))]
    ray.shutdown()
    _, alive = psutil.wait_procs(mine, timeout=_STOP_SECONDS)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()


def _handle(handler: Any) -> None:
    """Handle SIGTERM as before: Ray sets a handler of its own."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _kill_new(before: set[Any]) -> None:
    """Kill the processes that a Ray which did not start has left."""
    import psutil

    for process in set(psutil.Process().children(recursive=True)) - before:
        with suppress(psutil.Error):
            if _is_of_ray(_command(process)):
                process.kill()


def _command(process: Any) -> list[str]:
    import psutil

    with suppress(psutil.Error):
        command: list[str] = process.cmdline()
        return command
    return []


def _started(options: Mapping[str, Any], *, last: bool) -> bool:
    """Start Ray; whether it did. Leaves no process behind if not. Errors: `UsageError` at the last try."""
    import psutil
    import ray

    before = set(psutil.Process().children(recursive=True))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
        _handle(handler)
        return True
    except SystemExit:  # of Ray's own handler: this process was told to end
        _kill_new(before)
        _handle(handler)
        signal.raise_signal(signal.SIGTERM)
        raise
    except Exception as error:  # Ray raises whatever its processes raised
        ray.shutdown()
        _kill_new(before)
        why = f"Ray did not start: run again, or find the cause with `flywheel doctor` ({error})"
        if last:
            raise UsageError(why) from error
        print(f"Ray did not start, trying again ({error})", file=sys.stderr)
        return False


def _is_of_ray(command: list[str]) -> bool:
    """Whether a process belongs to Ray: other threads of this program may have started processes meanwhile."""
    return any(part.startswith("ray::") or "/ray/" in part for part in command)


def _code() -> list[str]:
    root = Path(__file__).resolve().parents[2]
    return [str(root / name) for name in _SHIPPED]


def run_all(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any | Exception]]:
    """(index, result) of `function(*call)` for each call, in order of completion.

    A task whose worker process dies is retried once; if it dies again, the exception is its result. A task whose node
    dies moves to another node. Errors inside the function are raised here, as `UsageError` if a package fails to load.
    """
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

    task = ray.remote(num_cpus=1, max_retries=1)(_call)
    in_flight = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))  # enough to keep every worker busy
    running: dict[Any, tuple[int, tuple[Any, ...], int]] = {}  # task → index, arguments, nodes lost so far
    queue = enumerate(calls)
    while True:
        while len(running) < in_flight and (following := next(queue, None)) is not None:
            index, arguments = following
            running[task.remote(function, *arguments)] = (index, arguments, 0)
        if not running:
            return
        done, _ = ray.wait(list(running), num_returns=1)
        index, arguments, lost = running.pop(done[0])
        try:
            yield index, ray.get(done[0])
        except NodeDiedError:
            if lost == _NODES_LOST:
                raise
            running[task.remote(function, *arguments)] = (index, arguments, lost + 1)
        except (WorkerCrashedError, OutOfMemoryError) as error:
            yield index, error
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, UsageError) else error.as_instanceof_cause() from None


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """In the worker, where the trace still tells which package did not load."""
    try:
        return function(*arguments)
    except Exception as error:
        raise_environment_error(error)
        raise
