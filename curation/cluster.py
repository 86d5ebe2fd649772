"""Ray: one plain task per shard. A local Ray is started when needed and stopped by whoever started it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_OBJECT_STORE = 256 * 1024 * 1024  # bytes; tasks return numbers and file names, never pictures


@contextmanager
def cluster(workers: int = 2) -> Iterator[None]:
    """A running Ray: the one that is already up, that of RAY_ADDRESS, or a local one with `workers` CPUs."""
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet = {"logging_level": "error", "log_to_driver": False}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
    else:
        ray.init(
            address="local", num_cpus=workers, include_dashboard=False, object_store_memory=_OBJECT_STORE, **quiet
        )
    try:
        yield
    finally:
        ray.shutdown()


def run_all(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any | Exception]]:
    """(index, result) of `function(*call)` for each call, in the order of completion.

    A task whose worker process dies is tried once more; if it dies again its result is the exception. Errors inside the
    function are raised here.
    """
    import ray
    from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError

    task = ray.remote(num_cpus=1, max_retries=1)(function)
    in_flight = max(2, 2 * int(ray.cluster_resources().get("CPU", 1)))  # enough that no worker waits for the driver
    running: dict[Any, int] = {}
    queue = enumerate(calls)
    while True:
        while len(running) < in_flight and (following := next(queue, None)) is not None:
            index, arguments = following
            running[task.remote(*arguments)] = index
        if not running:
            return
        done, _ = ray.wait(list(running), num_returns=1)
        index = running.pop(done[0])
        try:
            yield index, ray.get(done[0])
        except (WorkerCrashedError, OutOfMemoryError) as error:
            yield index, error
        except RayTaskError as error:
            raise error.as_instanceof_cause() from None
