"""The one table of schedules: `flywheel serve` and `prefect.yaml` both follow it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

WORKSPACE, SOURCE = "{{ $FLYWHEEL_WORKSPACE }}", "{{ $FLYWHEEL_SOURCE }}"  # `prefect deploy` fills in the variables
TAG = "flywheel"  # of every scheduled run


@dataclass(frozen=True)
class Schedule:
    """A flow and when it runs; unless `active`, only when a person starts it or turns its schedule on."""

    name: str
    description: str
    entrypoint: str  # importable name of the flow
    cron: str
    parameters: Mapping[str, object]
    active: bool = True


# The parameters of a flow that reads the source. policy None: the preset's.
JOB: Mapping[str, object] = {
    "workspace": WORKSPACE,
    "source": SOURCE,
    "captions": None,
    "policy": None,
    "preset": "tiny",
    "seed": 0,
    "workers": 2,
}

SCHEDULES = (
    Schedule(
        name="curate",
        description="Nightly. Ingest, score, filter and shard new images.",
        entrypoint="flows.scheduled.curate",
        cron="0 2 * * *",
        parameters=JOB,
    ),
    Schedule(
        name="collect-signals",
        description="Hourly. Import feedback, judgements and battles from the workspace's inbox.",
        entrypoint="flows.scheduled.collect_signals",
        cron="0 * * * *",
        parameters={"workspace": WORKSPACE},
    ),
    Schedule(
        name="route",
        description="Hourly. Group new signals into cases and give each case a track.",
        entrypoint="flows.scheduled.route",
        cron="30 * * * *",
        parameters={"workspace": WORKSPACE, "preset": "tiny"},
    ),
    Schedule(
        name="round",
        description="Weekly. Run the next round. It is suspended while people review.",
        entrypoint="flows.scheduled.round_",
        cron="0 4 * * 6",
        parameters=JOB,
    ),
    Schedule(
        name="review",
        description="Every ten minutes. Resume the round whose review is finished or past its deadline.",
        entrypoint="flows.scheduled.review",
        cron="*/10 * * * *",
        parameters={"workspace": WORKSPACE},
    ),
    Schedule(
        name="maintenance",
        description="Weekly. Compact the ledgers, export tables for analysts, verify every file.",
        entrypoint="flows.scheduled.maintenance",
        cron="0 6 * * 0",
        parameters={"workspace": WORKSPACE, "keep_hours": 168},
    ),
    Schedule(
        name="reinforce",
        description="Weekly. Train by reward on the latest RL remedy, and submit the result as a candidate.",
        entrypoint="flows.tracks.reinforce",
        cron="0 8 * * 1",
        parameters={"workspace": WORKSPACE, "preset": "tiny"},
        active=False,
    ),
    Schedule(
        name="enhancer",
        description="Weekly. Train the prompt enhancer on the latest examples by SFT, then GRPO.",
        entrypoint="flows.tracks.train_enhancer",
        cron="0 8 * * 2",
        parameters={"workspace": WORKSPACE, "preset": "tiny"},
        active=False,
    ),
    Schedule(
        name="distil",
        description="Weekly. Distil the checkpoint in service to a student of a few steps.",
        entrypoint="flows.tracks.distil",
        cron="0 8 * * 3",
        parameters={"workspace": WORKSPACE, "recipe": "dmd-tiny"},
        active=False,
    ),
)
CRON: Mapping[str, str] = {schedule.name: schedule.cron for schedule in SCHEDULES if schedule.active}
