"""Steps of a flow as task runs that the server records, with what they say in its logs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flywheel.core.errors import UsageError
from flywheel.core.progress import Progress
from flywheel.core.workspace import Workspace
from flywheel.rounds.context import Context

if TYPE_CHECKING:
    from prefect import Task
    from prefect.client.schemas import TaskRun
    from prefect.states import State

Publish = Mapping[str, Callable[[Workspace], object]]


@dataclass(frozen=True)
class Terminal:
    """The command that started a flow run: where its progress is shown, and what it publishes as its last steps."""

    progress: Progress
    publish: Publish


# Objects that cannot be parameters of a flow run, which the server stores as JSON. None in scheduled runs.
TERMINAL: ContextVar[Terminal | None] = ContextVar("terminal", default=None)


def run_log() -> logging.Logger:
    """Writes to the logs of the current task run at the server, and nowhere else: the command shows its own lines."""
    from prefect.logging.handlers import APILogHandler

    log = logging.getLogger("flywheel.steps")
    if not log.handlers:
        log.addHandler(APILogHandler())
        log.setLevel(logging.INFO)
        log.propagate = False
    return log


def task_step(
    name: str, function: Callable[..., Any], *args: Any, retry_delays: Sequence[float] = (), **kwargs: Any
) -> Any:
    """Run one step as a task run of that name; what it says is in the task run's logs.

    The task has no parameters and no result, because Prefect walks through both, and they may be whole data sets. It
    has no cache either: a step finds its own finished work. `retry_delays`: seconds to wait before each retry; a
    `UsageError` is not retried, nor is a part of a step by itself: the whole step is. Results that have a table get it
    as an artifact of the task run.
    """
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.context import TaskRunContext

    from flows.artifacts import show

    delays = [] if TaskRunContext.get() else list(retry_delays)

    results: list[Any] = []

    terminal = TERMINAL.get()
    progress = next((a.progress for a in args if isinstance(a, Context)), terminal and terminal.progress)

    def step() -> None:
        with progress.heard_by(run_log().info) if progress else nullcontext():
            results.append(function(*args, **kwargs))
        show(results[0])

    def may_succeed(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
        return not isinstance(state.result(raise_on_failure=False), UsageError)

    decorate = task(
        name=function.__name__,
        task_run_name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(delays),
        retry_delay_seconds=delays,
        retry_condition_fn=may_succeed,
    )
    decorate(step)()
    return results[0]
