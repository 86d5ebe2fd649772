"""When each flow runs: the schedules of `flywheel serve`. `prefect.yaml` holds the same for workers of a pool."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from prefect.deployments.runner import RunnerDeployment

from flows import scheduled
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

FLOWS = {
    "curate": scheduled.curate,
    "collect-signals": scheduled.collect_signals,
    "route": scheduled.route,
    "round": scheduled.round_,
    "review": scheduled.review,
    "maintenance": scheduled.maintenance,
}
SCHEDULES = {
    "curate": "0 2 * * *",
    "collect-signals": "0 * * * *",
    "route": "30 * * * *",
    "round": "0 4 * * 6",
    "review": "*/10 * * * *",
    "maintenance": "0 6 * * 0",
}


def serve(workspace: str, parameters: Mapping[str, Any], schedules: Mapping[str, Any] = SCHEDULES) -> None:
    """Register the deployments and run what falls due, until interrupted; then their schedules are paused.

    Two runs at a time: a round that trains does not keep signals from being collected.
    Errors: `UsageError` where PREFECT_API_URL names no server that answers.
    """
    import prefect

    from flows.server import reach

    if not (url := os.environ.get("PREFECT_API_URL")):
        raise UsageError("schedules need a Prefect server: run `prefect server start` and set PREFECT_API_URL to it")
    reach(url)
    prefect.serve(*deployments(workspace, parameters, schedules), limit=2, print_starting_message=False)


def deployments(
    workspace: str, parameters: Mapping[str, Any], schedules: Mapping[str, Any] = SCHEDULES
) -> list[RunnerDeployment]:
    """A deployment per flow that has a schedule (cron text, or seconds between runs) for one workspace."""
    made = []
    for name, schedule in schedules.items():
        wanted = FLOWS[name].parameters.properties
        made.append(
            FLOWS[name].to_deployment(
                name=f"{name}-{Workspace(workspace).root.name}",
                parameters={k: v for k, v in {"workspace": workspace, **parameters}.items() if k in wanted},
                tags=["flywheel", name],
                concurrency_limit=1,
                **{"cron" if isinstance(schedule, str) else "interval": schedule},
            )
        )
    return made
