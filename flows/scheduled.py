"""What runs by schedule, each a Prefect flow: curate nightly, a round weekly, maintenance weekly.

One at a time per workspace; a step that fails is tried again where trying can help; a failed run calls the webhook that
FLYWHEEL_WEBHOOK names. Deployed by `flywheel serve`, or by `prefect deploy --all` with `prefect.yaml`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.deployments.runner import RunnerDeployment
from pydantic import Field

from flows.round import publish, task_step
from flywheel.maintenance import maintain
from flywheel.preset import load_preset
from flywheel.progress import Progress
from flywheel.rounds import steps
from flywheel.rounds.job import Job
from flywheel.rounds.run import run, validate
from flywheel.workspace import UsageError, Workspace, digest

log = logging.getLogger(__name__)

RETRIES = (30, 300)  # seconds before each further try of a step
SCHEDULES = {"curate": "0 2 * * *", "round": "0 4 * * 6", "maintenance": "0 6 * * 0"}

Count = Annotated[int, Field(ge=1)]


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
    workspace: str,
    source: str,
    captions: str | None = None,
    policy: str | None = None,
    preset: str = "tiny",
    workers: Count = 2,
) -> None:
    """Bring new pictures of the source into the pool, score, decide and shard what is new."""
    job = Job(workspace, source, captions, policy, preset, workers=workers)
    validate(job)
    context = steps.Context(Workspace(workspace), job, load_preset(preset), Progress())
    with one_at_a_time(context.workspace):
        for name, step in (("ingest", steps.ingest), ("held-out suite", steps.hold_out), ("curate", steps.curate)):
            curated = retried(name, step, context)
    create_table_artifact([dict(row) for row in curated.funnel], key="flywheel-funnel", description="Rows per filter")
    counts = f"{curated.input:,} input = {curated.admitted:,} admitted + {curated.dropped:,} dropped"
    create_markdown_artifact(f"{counts} + {curated.quarantined:,} quarantined", key="flywheel-curate")


@flow(name="flywheel-round", on_failure=[notify], persist_result=False)
def round_(
    workspace: str,
    source: str,
    captions: str | None = None,
    policy: str | None = None,
    preset: str = "tiny",
    seed: int = 0,
    workers: Count = 2,
) -> None:
    """One more round on the source as it is now."""
    from dashboards.report import write
    from flywheel.ledger import Ledger

    opened = Workspace(workspace)
    with one_at_a_time(opened):
        job = Job(
            workspace, source, captions, policy, preset, seed, Ledger(opened, "rounds").table().num_rows + 1, workers
        )
        validate(job)
        publish(run(job, step=retried, progress=Progress(), report=write))


@flow(name="flywheel-maintenance", on_failure=[notify], persist_result=False)
def maintenance(workspace: str, keep_hours: Annotated[int, Field(ge=0)] = 168) -> None:
    """Compact and vacuum the ledgers, export the last round as DuckDB, verify every file."""
    opened = Workspace(workspace, create=False)
    with one_at_a_time(opened):
        found = retried("maintain", lambda: maintain(opened, keep_hours=keep_hours))
    create_table_artifact(
        [{"ledger": name, **counts} for name, counts in found["ledgers"].items()], key="flywheel-ledgers"
    )
    said = "sound" if found["sound"] else "**NOT SOUND**: " + "; ".join(f["path"] for f in found["findings"])
    create_markdown_artifact(f"{found['files']:,} files verified: {said}", key="flywheel-fsck")
    if not found["sound"]:
        raise RuntimeError(f"{workspace} is not sound: run `flywheel fsck -w {workspace}`")


def serve(workspace: str, parameters: Mapping[str, Any], schedules: Mapping[str, Any] = SCHEDULES) -> None:
    """Register the deployments and run what falls due, until interrupted; then their schedules are paused.

    Errors: `UsageError` where PREFECT_API_URL names no server that answers.
    """
    import prefect

    from flows.server import reach

    if not (url := os.environ.get("PREFECT_API_URL")):
        raise UsageError("schedules need a Prefect server: run `prefect server start` and set PREFECT_API_URL to it")
    reach(url)
    prefect.serve(*deployments(workspace, parameters, schedules), limit=1, print_starting_message=False)


def deployments(
    workspace: str, parameters: Mapping[str, Any], schedules: Mapping[str, Any] = SCHEDULES
) -> list[RunnerDeployment]:
    """A deployment per flow that has a schedule (cron text, or seconds between runs) for one workspace."""
    flows = {"curate": curate, "round": round_, "maintenance": maintenance}
    made = []
    for name, schedule in schedules.items():
        wanted = flows[name].parameters.properties
        made.append(
            flows[name].to_deployment(
                name=f"{name}-{Workspace(workspace).root.name}",
                parameters={k: v for k, v in {"workspace": workspace, **parameters}.items() if k in wanted},
                tags=["flywheel", name],
                concurrency_limit=1,
                **{"cron" if isinstance(schedule, str) else "interval": schedule},
            )
        )
    return made
