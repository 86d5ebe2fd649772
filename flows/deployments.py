"""Deployments of the scheduled flows: for `flywheel serve`, and for the workers of a pool as `prefect.yaml`.

`python -m flows.deployments [--zone ZONE] > prefect.yaml` writes that file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import ValidationError

from flows.schedules import CRON, JOB, SCHEDULES, SOURCE, TAG, WORKSPACE, Schedule
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.deployments.runner import RunnerDeployment

_HEADER = f"""\
# Deployments of every flow, for the workers of a process pool. Generated: `python -m flows.deployments > prefect.yaml`;
# with `--zone Europe/Berlin`, times are those of that place, also when its clocks change.
#
#   export PREFECT_API_URL=http://127.0.0.1:4200/api FLYWHEEL_WORKSPACE=/data/w FLYWHEEL_SOURCE=/data/photos
#   prefect work-pool create flywheel --type process
#   prefect deploy --all
#   prefect worker start --pool flywheel
#
# `flywheel serve` does the same without a pool. Workers import the flows from the installed package: nothing is pulled.
name: image-flywheel
pull: []

definitions:
  pool: &pool
    name: flywheel
  workspace: &workspace "{WORKSPACE}"
  job: &job
"""
_COMMENTS = {"captions": "a JSON Lines file: file, caption, references", "policy": "null: the preset's policy"}


def serve(
    workspace: str, parameters: Mapping[str, Any], schedules: Mapping[str, str | float] = CRON, zone: str = "UTC"
) -> None:
    """Register the deployments and start runs when they are due, until interrupted; then pause their schedules.

    At most two runs at a time, so that signals are collected while a round trains. zone: as of `deployments`.
    Errors: `UsageError` when no server answers at PREFECT_API_URL, and as of `deployments`.
    """
    import prefect

    from flows.server import reach

    if not (url := os.environ.get("PREFECT_API_URL")):
        raise UsageError("schedules need a Prefect server: run `prefect server start` and set PREFECT_API_URL to it")
    reach(url)
    prefect.serve(*deployments(workspace, parameters, schedules, zone), limit=2, print_starting_message=False)


def deployments(
    workspace: str, parameters: Mapping[str, Any], schedules: Mapping[str, str | float] = CRON, zone: str = "UTC"
) -> list[RunnerDeployment]:
    """One deployment for each flow in `schedules` (name → cron text, or seconds between runs), for one workspace.

    Flows whose schedule is not active get one without a schedule, for people to start. `parameters` replace the
    table's wherever a flow takes them. zone: time zone of the cron texts, as in `Europe/Berlin`: a run at 2:00 stays at
    2:00 there when the clocks change; where that hour is skipped it comes right after, where it is repeated, once.
    Errors: `UsageError` for an unknown zone or a cron text that is none.
    """
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.deployments.runner import RunnerDeployment

    table = {schedule.name: schedule for schedule in SCHEDULES}
    by_hand = {s.name: None for s in SCHEDULES if not s.active}
    values = {**parameters, "workspace": workspace}
    root = Workspace(workspace).root.name
    return [
        RunnerDeployment.from_flow(
            flow(table[name]),
            name=f"{name}-{root}",
            parameters={k: values.get(k, default) for k, default in table[name].parameters.items()},
            tags=tags(table[name]),
            schedule=_cron(CronSchedule, name, when, zone) if isinstance(when, str) else None,
            interval=None if isinstance(when, str) else when,
        )
        for name, when in {**by_hand, **schedules}.items()
    ]


def _cron(kind: Any, name: str, when: str, zone: str) -> Any:
    require_zone(zone)
    try:
        return kind(cron=when, timezone=zone)
    except ValidationError as error:
        raise UsageError(f"--{name} {when!r} is not a cron expression, such as '0 2 * * *'") from error


def require_zone(zone: str) -> None:
    """Check the name of a time zone. Errors: `UsageError`."""
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"--zone {zone!r} is not a time zone, such as Europe/Berlin or UTC") from error


def flow(schedule: Schedule) -> Flow[..., Any]:
    """The flow at a schedule's entrypoint."""
    module, name = schedule.entrypoint.rsplit(".", 1)
    return getattr(import_module(module), name)


def tags(schedule: Schedule) -> list[str]:
    """Tags of a schedule's runs."""
    return [TAG, schedule.name]


def prefect_yaml(zone: str = "UTC") -> str:
    """The text of `prefect.yaml`. zone: as of `deployments`. Errors: `UsageError` for an unknown zone."""
    require_zone(zone)
    job = "".join(f"    {name}: {_value(value)}{_comment(name)}\n" for name, value in JOB.items())
    return _HEADER + job + "\ndeployments:\n" + "\n".join(_deployment(s, zone) for s in SCHEDULES)


def _deployment(schedule: Schedule, zone: str) -> str:
    parameters = ", ".join(f"{name}: {_value(value)}" for name, value in schedule.parameters.items())
    return f"""\
  - name: {schedule.name}
    description: {schedule.description}
    entrypoint: {schedule.entrypoint}
    work_pool: *pool
    tags: [{", ".join(tags(schedule))}]
    schedules: [{{ cron: "{schedule.cron}", timezone: {zone}{"" if schedule.active else ", active: false"} }}]
    parameters: {"*job" if schedule.parameters is JOB else f"{{ {parameters} }}"}
"""


def _value(value: object) -> str:
    """YAML of a parameter's value: JSON, but for strings that need no quotes."""
    if value == WORKSPACE:
        return "*workspace"
    return value if isinstance(value, str) and value != SOURCE else json.dumps(value)


def _comment(name: str) -> str:
    return f" # {_COMMENTS[name]}" if name in _COMMENTS else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print prefect.yaml.")
    parser.add_argument("--zone", default="UTC", help="time zone of the schedules, such as Europe/Berlin")
    try:
        sys.stdout.write(prefect_yaml(parser.parse_args().zone))
    except UsageError as error:
        sys.exit(f"error: {error}")
