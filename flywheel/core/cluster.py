"""Ray: one plain task per shard. A local Ray is started when needed, and stopped by the caller that started it.

Workers of a cluster receive this program's own code. Its nodes need the same dependencies, and must see the workspace
at the same path. Where no cluster was named, processes of this machine do the same work if it is little, or if Ray does
not start.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import current_process
from pathlib import Path
from typing import Any, NamedTuple

from flywheel.core import ray_head
from flywheel.core.environment import raise_environment_error
from flywheel.core.errors import UsageError
from flywheel.core.local_workers import LocalWorkers, shared_object

_SHIPPED = ("curation", "flywheel", "training")  # packages that tasks and training workers import
_NODES_LOST = 5  # nodes that one task may lose: a lost node is not the fault of the task's data
_STOP_SECONDS = 1.0  # until processes of a Ray that was shut down are killed
_TRIES = 2  # Ray gives up after 30 seconds, which a busy machine needs
_OBJECT_STORE = 256 * 1024 * 1024  # bytes; tasks return numbers and file names, never pictures


class Needs(NamedTuple):
    """What a task occupies while it runs; gpus only where the cluster has any."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0  # bytes


_local: LocalWorkers | None = None  # in place of Ray …
_users = 0  # … and how many `cluster` blocks, of any thread, use them
_lock = threading.Lock()


@contextmanager
def cluster(workers: int = 2, *, ray_only: bool = False, few: bool = False, ready: str = "") -> Iterator[None]:
    """A running Ray: the one already connected, the one at RAY_ADDRESS, or a local one with `workers` CPUs.

    A local Ray that does not start in time is tried again; then `workers` local processes take its place, unless
    `ray_only`. few: there is so little work that they take it at once, unless there are GPUs, which Ray gives to one
    task at a time. ready: module that they have loaded when they start. Errors: `UsageError` when Ray does not start,
    or is lost while in use.
    """
    if _local is not None:
        with _processes(workers, ready):  # those that run: they stay for as long as somebody uses them
            yield
        return
    if running():
        yield
        return
    # A daemonic process, as of `multiprocessing.Pool`, may have no processes of Python's own: it has Ray.
    if few and not os.environ.get("RAY_ADDRESS") and not _has_gpus() and not current_process().daemon:
        with _processes(workers, ready):
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
    with ray_head.watched(os.environ.get("RAY_ADDRESS", "")):
        if _started(options, may_fail="address" in options and not ray_only):
            with _connected():
                yield
            return
    print(f"Ray did not start: {workers} local processes do its work", file=sys.stderr)
    with _processes(workers, ready):
        yield


@contextmanager
def _connected() -> Iterator[None]:
    """Disconnects from Ray at the end. Errors: `UsageError` when Ray is lost inside the block."""
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayTaskError:  # an error in a task's own code
        raise
    except RayError as error:
        reason = str(error).partition(". ")[0]
        raise UsageError(f"Ray was lost: run again, finished work is kept ({reason})") from error
    finally:
        _stop()


def running() -> bool:
    """Whether this program is inside a `cluster`."""
    ray = sys.modules.get("ray")
    return _local is not None or (ray is not None and ray.is_initialized())


def _has_gpus() -> bool:
    """Whether this machine has a GPU; without loading a library that asks it."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def _stop() -> None:
    """Disconnect from Ray, and end a local one for good: its agents outlive it by up to half a minute."""
    import psutil
    import ray

    mine = [p for p in psutil.Process().children(recursive=True) if _is_of_ray(_command(p))]
    handler = signal.getsignal(signal.SIGTERM)
    ray.shutdown()
    _handle(handler)  # Ray's end leaves the default, below what Python knows of
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


@contextmanager
def _processes(workers: int, ready: str) -> Iterator[None]:
    """Local processes in the place of Ray: those that another thread uses, or new ones. The last user ends them."""
    global _local, _users
    with _lock:
        mine = _local = _local or LocalWorkers(workers, ready)
        _users += 1
    ended = mine.kill
    try:
        yield
        ended = mine.close
    finally:
        with _lock:
            _users -= 1
            last = not _users
            if last:
                _local = None
        if last:
            ended()


def _started(options: Mapping[str, Any], *, may_fail: bool) -> bool:
    """Start Ray, if it is a local one in several tries; whether it did. Errors: `UsageError` unless it may fail."""
    for tries_left in reversed(range(_TRIES if "address" in options else 1)):
        error = _try_to_start(options)
        if error is None:
            return True
        if tries_left:
            print(f"Ray did not start, trying again ({error})", file=sys.stderr)
    if may_fail:
        return False
    raise UsageError(
        f"Ray did not start: run again, or find the cause with `flywheel doctor` ({' '.join(str(error).split())})"
    ) from error


def _try_to_start(options: Mapping[str, Any]) -> Exception | None:
    """Start Ray; why it did not. Leaves no process behind then."""
    import psutil
    import ray

    before = set(psutil.Process().children(recursive=True))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
        _handle(handler)
        return None
    except SystemExit:  # of Ray's own handler: this process was told to end
        _kill_new(before)
        _handle(handler)
        signal.raise_signal(signal.SIGTERM)
        raise
    except Exception as error:  # noqa: BLE001 - Ray raises whatever its processes raised
        ray.shutdown()
        _kill_new(before)
        return error


def _is_of_ray(command: list[str]) -> bool:
    """Whether a process belongs to Ray: other threads of this program may have started processes meanwhile."""
    return any(part.startswith("ray::") or "/ray/" in part for part in command)


def _code() -> list[str]:
    root = Path(__file__).resolve().parents[2]
    return [str(root / name) for name in _SHIPPED]


def run_all(
    function: Callable[..., Any],
    calls: Iterable[tuple[Any, ...]],
    *,
    needs: Callable[[tuple[Any, ...]], Needs] = lambda _: Needs(),
) -> Iterator[tuple[int, Any | Exception]]:
    """(index, result) of `function(*call)` for each call, in order of completion. needs: of a call, for Ray's placing.

    A task whose worker process dies is retried once; if it dies again, the exception is its result. A task whose node
    dies moves to another node. Errors inside the function are raised here, as `UsageError` if a package fails to load.
    """
    if _local is not None:
        yield from _local.run_all(partial(_call, function), calls)
        return
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

    task, nodes = ray.remote(max_retries=1)(_call), [n["Resources"] for n in ray.nodes() if n["Alive"]]
    in_flight = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))  # enough to keep every worker busy
    running: dict[Any, tuple[int, tuple[Any, ...], int]] = {}  # task → index, arguments, nodes lost so far
    queue = enumerate(calls)
    while True:
        while len(running) < in_flight and (following := next(queue, None)) is not None:
            index, arguments = following
            options = _options(needs(arguments), nodes)
            running[task.options(**options).remote(function, *arguments)] = (index, arguments, 0)
        if not running:
            return
        done, _ = ray.wait(list(running), num_returns=1, timeout=ray_head.ASK_SECONDS)
        if not done:
            ray_head.require(ray.get_runtime_context().gcs_address)
            continue
        index, arguments, lost = running.pop(done[0])
        try:
            yield index, ray.get(done[0])
        except NodeDiedError:
            if lost == _NODES_LOST:
                raise
            options = _options(needs(arguments), nodes)
            running[task.options(**options).remote(function, *arguments)] = (index, arguments, lost + 1)
        except (WorkerCrashedError, OutOfMemoryError) as error:
            yield index, error
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, UsageError) else error.as_instanceof_cause() from None


def _options(needs: Needs, nodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Ray's options of a task: never more than the largest node has, so that every task is placed at some time."""
    most = {kind: max((n.get(kind, 0.0) for n in nodes), default=0.0) for kind in ("CPU", "GPU", "memory")}
    options = {"num_cpus": min(needs.cpus, max(most["CPU"], 1.0)), "num_gpus": min(needs.gpus, most["GPU"])}
    return options | ({"memory": min(needs.memory, int(most["memory"]))} if needs.memory else {})


@contextmanager
def shared(kind: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
    """`kind(*arguments)` for all tasks of a `cluster` to call: give what it yields to them as an argument.

    It is an actor of Ray, whose methods are called by `method.remote(…)`; or, where local processes take Ray's place,
    an object whose methods are called as usual.
    """
    if _local is not None:
        with shared_object(kind, *arguments) as proxy:
            yield proxy
        return
    import ray

    yield ray.remote(num_cpus=0)(kind).remote(*arguments)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """In the worker, where the trace still tells which package did not load."""
    try:
        return function(*arguments)
    except Exception as error:
        raise_environment_error(error)
        raise
