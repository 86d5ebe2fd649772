"""The Prefect flows; `flows.schedules` says when each runs.

Flows that change the pool or a round wait for each other, per workspace (`flows.turns`). A failed step is retried
unless the user has to fix the cause. A failed run is posted to FLYWHEEL_WEBHOOK. A scheduled round that waits for
reviewers is suspended: it occupies no worker and survives restarts, until the review flow finds the review finished and
resumes it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_runs import resume_flow_run, suspend_flow_run
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import Field

from flows.artifacts import Shown, counts, link, markdown_artifact, publish, table_artifact
from flows.steps import TERMINAL, Terminal, task_step
from flows.turns import end_lost_runs, once_at_a_time, one_at_a_time
from flywheel.cases.stored import gather, route_stored
from flywheel.core.workspace import Workspace
from flywheel.operate.maintenance import maintain
from flywheel.presets import load_preset
from flywheel.remedies.review import Queue, Waiting
from flywheel.rounds import run as runs
from flywheel.rounds.job import Job
from flywheel.rounds.outlook import next_round
from flywheel.signals.inbox import collect

if TYPE_CHECKING:
    from prefect.client.schemas import FlowRun

log = logging.getLogger(__name__)

RETRIES = (30, 300)  # seconds to wait before each retry of a step
ROUND = "flywheel-round"
FOREVER = 10 * 365 * 24 * 3600  # seconds: reviews have their own deadline, and Prefect's must not come first

Count = Annotated[int, Field(ge=1)]
# A deployment made without the environment variable still holds the placeholder.
Place = Annotated[str, Field(pattern=r"^[^{\s]", description="Folder; must not be a template")]
Sources = Place | tuple[Place, ...]


def notify(flow: Any, flow_run: Any, state: Any) -> None:
    """Post a failed run's flow, name, state and message to FLYWHEEL_WEBHOOK as JSON; not when a command shows them."""
    import httpx

    if (url := os.environ.get("FLYWHEEL_WEBHOOK")) and not TERMINAL.get():
        body = {"flow": flow.name, "run": flow_run.name, "state": state.name, "message": state.message}
        try:
            httpx.post(url, json=body, timeout=10).raise_for_status()
        except httpx.HTTPError as error:
            log.warning("cannot post to FLYWHEEL_WEBHOOK: %s", error)


def retried(name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Run a step as a task; retry errors that may pass, but not those that the user has to fix."""
    return task_step(name, function, *args, retry_delays=RETRIES)


@flow(name="flywheel-curate", on_failure=[notify], persist_result=False)
@once_at_a_time
def curate(
    workspace: Place,
    source: Sources,
    captions: str | None = None,
    policy: str | None = None,
    preset: str = "tiny",
    seed: int = 0,
    workers: Count = 2,
    retry: bool = False,
) -> None:
    """Ingest new images of the source, then score, filter and shard them."""
    job = Job(workspace, source, captions, policy, preset, seed, workers=workers, retry=retry)
    runs.validate(job, for_rounds=False)
    with one_at_a_time(Workspace(workspace)):
        curated = runs.curate(job, step=retried, progress=Shown())
    table_artifact(curated.funnel, "flywheel-funnel", "Rows per filter")
    markdown_artifact(counts(vars(curated)), "flywheel-curate")
    link("funnel", "Funnel")


@flow(name="flywheel-collect-signals", on_failure=[notify], persist_result=False)
@once_at_a_time
def collect_signals(workspace: Place, model: str | None = None) -> None:
    """Import new files of the inbox: feedback, judgements, battles. Fails at the end if a file cannot be read."""
    files = retried("collect", lambda: collect(Workspace(workspace, create=False), model=model))
    table_artifact(files, "flywheel-inbox", "Signals by source")
    if unreadable := [f"{f['source']}: {f['error']}" for f in files if f["error"]]:
        raise RuntimeError(f"repair or remove these unreadable files: {'; '.join(unreadable)}")


@flow(name="flywheel-route", on_failure=[notify], persist_result=False)
@once_at_a_time
def route(workspace: Place, preset: str = "tiny") -> None:
    """Turn new signals into cases, and route the cases that have stored experiments. Calls no model."""
    opened, settings = Workspace(workspace, create=False), load_preset(preset).attribution
    events = retried("gather", gather, opened)
    tracks = retried("route", route_stored, opened, settings)
    rows = [{"what": k, "cases": n} for k, n in (*events.items(), *tracks.items())]
    table_artifact(rows, "flywheel-cases", "Case events and tracks")
    link("cases", "Cases")


@flow(name=ROUND, on_failure=[notify], persist_result=False)
@once_at_a_time
def round_(
    workspace: Place,
    source: Sources,
    captions: str | None = None,
    policy: str | None = None,
    preset: str = "tiny",
    seed: int = 0,
    workers: Count = 2,
    auto_approve: bool = False,
    rounds: Count | None = None,
    retry: bool = False,
    draw_workers: Count | None = None,
) -> Any:
    """Run on the source as it is now until `rounds` rounds are finished; by default, one more than there are.

    When people must review, a scheduled run is suspended until they have; a run of the command ends.
    """
    opened, terminal = Workspace(workspace), TERMINAL.get()
    if not terminal and [run for run in suspended(workspace) if str(run.id) != flow_run.id]:
        return Completed(name="Skipped", message="an earlier run of this round waits for review")
    shown, step = (terminal, task_step) if terminal else (_scheduled(), retried)
    try:
        with nullcontext() if terminal else one_at_a_time(opened):
            number = rounds or next_round(opened)
            more = (number, workers, auto_approve, retry, draw_workers)
            job = Job(workspace, source, captions, policy, preset, seed, *more)
            runs.validate(job)
            summary = runs.run(job, step=step, progress=shown.progress, publish=shown.publish)
            publish(summary.as_dict())
            return summary
    except Waiting as waiting:
        if terminal:
            return Completed(name="WaitsForReview", message=str(waiting), data=waiting)
        markdown_artifact(str(waiting), "flywheel-review", "What this round waits for")
        link("review", "Review queue")
    return suspend_flow_run(timeout=FOREVER, key=uuid4().hex)  # ends this process


def _scheduled() -> Terminal:
    from dashboards.report import PUBLISH

    return Terminal(Shown(), PUBLISH)


@flow(name="flywheel-review", on_failure=[notify], persist_result=False)
@once_at_a_time
def review(workspace: Place) -> None:
    """Resume the round that waits for review, once the review is finished or its deadline has passed.

    Runs whose worker was killed are marked as crashed.
    """
    if lost := end_lost_runs(workspace):
        log.warning("marked as crashed, because their process is gone: %s", ", ".join(lost))
    if not Queue(Workspace(workspace, create=False)).pending():
        for run in suspended(workspace):
            resume_flow_run(run.id)


def suspended(workspace: str) -> list[FlowRun]:
    """Runs of the round flow on this workspace that wait for review."""
    from prefect.client.schemas.filters import (
        FlowFilter,
        FlowFilterName,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    paused = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))
    with get_client(sync_client=True) as client:
        waiting = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[ROUND])),
            flow_run_filter=FlowRunFilter(state=paused),
        )
    return [run for run in waiting if run.parameters.get("workspace") == workspace]


@flow(name="flywheel-maintenance", on_failure=[notify], persist_result=False)
@once_at_a_time
def maintenance(workspace: Place, keep_hours: Annotated[int, Field(ge=0)] = 168) -> None:
    """Compact and vacuum the ledgers, export the last round as DuckDB, verify every file."""
    opened = Workspace(workspace, create=False)
    with one_at_a_time(opened):
        report = retried("maintain", lambda: maintain(opened, keep_hours=keep_hours))
    table_artifact([{"ledger": n, **c} for n, c in report["ledgers"].items()], "flywheel-ledgers", "Files by ledger")
    verdict = "sound" if report["sound"] else "**NOT SOUND**: " + "; ".join(f["path"] for f in report["findings"])
    markdown_artifact(f"{report['files']:,} files verified: {verdict}", "flywheel-fsck")
    if not report["sound"]:
        raise RuntimeError(f"{workspace} is not sound: run `flywheel fsck -w {workspace}`")
