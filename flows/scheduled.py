"""What runs by schedule, each a Prefect flow of plain calls; `flows.deployments` says when.

Flows that change the pool or a round wait for each other, per workspace; a step that fails is tried again where trying
can help; a failed run calls the webhook that FLYWHEEL_WEBHOOK names. A round that waits for people is suspended: it
holds no worker and survives any restart, until the review flow finds that they are done and wakes it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.flow_runs import resume_flow_run, suspend_flow_run
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import Field

from flows.artifacts import Shown, counts, link, markdown_artifact, publish, table_artifact
from flows.round import task_step
from flywheel.cases.stored import gather, route_stored
from flywheel.core.files import digest
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

RETRIES = (30, 300)  # seconds before each further try of a step
ROUND = "flywheel-round"
FOREVER = 10 * 365 * 24 * 3600  # seconds: people have their own deadline, Prefect's must not come first

Count = Annotated[int, Field(ge=1)]
# A deployment made without the variable that names it still holds the placeholder.
Place = Annotated[str, Field(pattern=r"^[^{\s]", description="Folder; must not be a template")]


def notify(flow: Any, flow_run: Any, state: Any) -> None:
    """Tell the webhook of FLYWHEEL_WEBHOOK that a run failed: its flow, name and message as JSON."""
    import httpx

    if url := os.environ.get("FLYWHEEL_WEBHOOK"):
        body = {"flow": flow.name, "run": flow_run.name, "state": state.name, "message": state.message}
        try:
            httpx.post(url, json=body, timeout=10).raise_for_status()
        except httpx.HTTPError as error:
            log.warning("the webhook of FLYWHEEL_WEBHOOK was not reached: %s", error)


@contextmanager
def one_at_a_time(workspace: Workspace) -> Iterator[None]:
    """Wait until no other scheduled run works on this workspace."""
    name = f"workspace-{digest(str(workspace.root))[:12]}"
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, 1)
    with concurrency(name, strict=True):
        yield


def retried(name: str, function: Callable[..., Any], *args: Any) -> Any:
    """A step that is tried again after what may pass: not after an error that the user must mend."""
    return task_step(name, function, *args, retry_delays=RETRIES)


@flow(name="flywheel-curate", on_failure=[notify], persist_result=False)
def curate(
    workspace: Place,
    source: Place,
    captions: str | None = None,
    policy: str | None = None,
    preset: str = "tiny",
    seed: int = 0,
    workers: Count = 2,
) -> None:
    """Bring new pictures of the source into the pool, score, decide and shard what is new."""
    job = Job(workspace, source, captions, policy, preset, seed, workers=workers)
    runs.validate(job)
    with one_at_a_time(Workspace(workspace)):
        curated = runs.curate(job, step=retried, progress=Shown())
    table_artifact(curated.funnel, "flywheel-funnel", "Rows per filter")
    markdown_artifact(counts(vars(curated)), "flywheel-curate")
    link("funnel", "Funnel")


@flow(name="flywheel-collect-signals", on_failure=[notify], persist_result=False)
def collect_signals(workspace: Place, model: str | None = None) -> None:
    """Import what arrived in the inbox: feedback, judgements, battles. Fails at its end for an unreadable file."""
    found = retried("collect", lambda: collect(Workspace(workspace, create=False), model=model))
    table_artifact(found, "flywheel-inbox", "Signals by source")
    if unread := [f"{r['source']}: {r['error']}" for r in found if r["error"]]:
        raise RuntimeError(f"repair or remove what cannot be read: {'; '.join(unread)}")


@flow(name="flywheel-route", on_failure=[notify], persist_result=False)
def route(workspace: Place, preset: str = "tiny") -> None:
    """Turn new signals into cases, and route the cases on which experiments are stored. Calls no model."""
    opened, settings = Workspace(workspace, create=False), load_preset(preset).attribution
    events = retried("gather", gather, opened)
    tracks = retried("route", route_stored, opened, settings)
    rows = [{"what": k, "cases": n} for k, n in (*events.items(), *tracks.items())]
    table_artifact(rows, "flywheel-cases", "Case events and tracks")
    link("cases", "Cases")


@flow(name=ROUND, on_failure=[notify], persist_result=False)
def round_(
    workspace: Place,
    source: Place,
    captions: str | None = None,
    policy: str | None = None,
    preset: str = "tiny",
    seed: int = 0,
    workers: Count = 2,
    auto_approve: bool = False,
) -> Any:
    """One more round on the source as it is now. Where people must review, it is suspended until they have."""
    from dashboards.report import PUBLISH

    opened = Workspace(workspace)
    if [run for run in suspended(workspace) if str(run.id) != flow_run.id]:
        return Completed(name="Skipped", message="an earlier run of this round waits for review")
    try:
        with one_at_a_time(opened):
            job = Job(workspace, source, captions, policy, preset, seed, next_round(opened), workers, auto_approve)
            runs.validate(job)
            publish(runs.run(job, step=retried, progress=Shown(), publish=PUBLISH).as_dict())
            return None
    except Waiting as people:
        markdown_artifact(str(people), "flywheel-review", "What this round waits for")
        link("review", "Review queue")
    return suspend_flow_run(timeout=FOREVER, key=uuid4().hex)  # ends this process


@flow(name="flywheel-review", on_failure=[notify], persist_result=False)
def review(workspace: Place) -> None:
    """Wake the round that waits for review, once people are done or their deadline has passed."""
    if not Queue(Workspace(workspace, create=False)).pending():
        for run in suspended(workspace):
            resume_flow_run(run.id)


def suspended(workspace: str) -> list[FlowRun]:
    """Runs of the round's flow on this workspace that wait for review."""
    from prefect.client.schemas.filters import FlowFilter, FlowRunFilter

    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=FlowFilter(name={"any_": [ROUND]}),
            flow_run_filter=FlowRunFilter(state={"type": {"any_": ["PAUSED"]}}),
        )
    return [run for run in found if run.parameters.get("workspace") == workspace]


@flow(name="flywheel-maintenance", on_failure=[notify], persist_result=False)
def maintenance(workspace: Place, keep_hours: Annotated[int, Field(ge=0)] = 168) -> None:
    """Compact and vacuum the ledgers, export the last round as DuckDB, verify every file."""
    opened = Workspace(workspace, create=False)
    with one_at_a_time(opened):
        found = retried("maintain", lambda: maintain(opened, keep_hours=keep_hours))
    table_artifact([{"ledger": n, **c} for n, c in found["ledgers"].items()], "flywheel-ledgers", "Files by ledger")
    said = "sound" if found["sound"] else "**NOT SOUND**: " + "; ".join(f["path"] for f in found["findings"])
    markdown_artifact(f"{found['files']:,} files verified: {said}", "flywheel-fsck")
    if not found["sound"]:
        raise RuntimeError(f"{workspace} is not sound: run `flywheel fsck -w {workspace}`")
