"""Whose turn it is: scheduled runs on one workspace follow each other, and no flow works twice at the same time.

The locks are files of the workspace, not slots of the Prefect server: a killed worker frees its own, and a restarted
server leaves none behind. What a killed worker does leave, a run that is `Running` for ever, is marked as crashed.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Completed, Crashed, State

from flows.schedules import TAG
from flows.steps import TERMINAL
from flywheel.core.errors import UsageError
from flywheel.core.lock import locked
from flywheel.core.storage import remote
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    from prefect.client.schemas import FlowRun

PATIENCE = 90.0  # seconds that a run waits for an earlier one of its flow
_YOUNG = timedelta(minutes=5)  # a run of this age may not have its lock yet
_SETTLE = 30.0  # seconds within which a run that has freed its lock reports its end
_SHOWS = 75.0  # seconds after which a lock on S3 shows whether its holder lives

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def one_at_a_time(workspace: Workspace) -> Iterator[None]:
    """Wait until no other scheduled run works on this workspace."""
    with locked(workspace.path(".scheduled.lock")):
        yield


def once_at_a_time(body: Callable[P, R]) -> Callable[P, R | State]:
    """A flow's function that does nothing while an earlier run of its flow works on the same workspace.

    The later run waits for `PATIENCE` seconds, then completes as `Skipped`. Runs of the command are not affected: they
    hold the workspace itself.
    """

    @wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> R | State:
        root = inspect.signature(body).bind(*args, **kwargs).arguments["workspace"]
        with ExitStack() as stack:
            if not TERMINAL.get() and (path := _lock(root, str(flow_run.flow_name))):
                try:
                    stack.enter_context(locked(path, seconds=PATIENCE))
                except TimeoutError:
                    return Completed(name="Skipped", message=f"an earlier run of this flow still works on {root}")
            return body(*args, **kwargs)

    # Prefect looks for the names of annotations in this module otherwise.
    run.__annotations__ = inspect.get_annotations(body, eval_str=True)
    run.__signature__ = inspect.signature(body, eval_str=True)  # type: ignore[attr-defined]
    return run


def _lock(root: str, flow: str) -> Path | None:
    try:
        return Workspace(root, create=False).path(f".{flow}.lock")
    except UsageError:  # the flow creates it, or says what is wrong
        return None


def end_lost_runs(workspace: str) -> list[str]:
    """Mark the workspace's runs as crashed whose process is gone; returns their names."""
    lost = _lost(workspace)
    if not lost:
        return []
    time.sleep(_SETTLE)
    still = {run.id for run in _lost(workspace)}
    ended = [run for run in lost if run.id in still]
    with get_client(sync_client=True) as client:
        for run in ended:
            reason = "its process is gone: the next run resumes what it had begun"
            client.set_flow_run_state(run.id, Crashed(message=reason), force=True)
    return [run.name for run in ended]


def _lost(workspace: str) -> list[FlowRun]:
    """Runs in the state `Running` whose flow's lock nobody holds."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        FlowRunFilterTags,
    )
    from prefect.client.schemas.objects import StateType

    working = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
    oldest = datetime.now(UTC) - _YOUNG
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=working, tags=FlowRunFilterTags(all_=[TAG])))
        found = [r for r in found if r.parameters.get("workspace") == workspace]
        found = [r for r in found if r.start_time and r.start_time < oldest]
        flows = {r.flow_id: client.read_flow(r.flow_id).name for r in found}
    locks = {id_: _lock(workspace, name) for id_, name in flows.items()}
    free = {id_ for id_, path in locks.items() if path and _is_free(path)}
    return [run for run in found if run.flow_id in free]


def _is_free(path: Path) -> bool:
    try:
        with locked(path, seconds=_SHOWS if remote(path) else 0.0):
            return True
    except TimeoutError:
        return False
