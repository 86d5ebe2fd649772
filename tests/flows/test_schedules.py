"""The table of schedules names flows that exist, with parameters that they take."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from flows.schedules import CRON, SCHEDULES, Schedule

ROOT = Path(__file__).resolve().parents[2]


def parameters(entrypoint: str) -> set[str]:
    """Parameters of a function, by reading its file: importing it would import Prefect."""
    module, _, name = entrypoint.rpartition(".")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    (found,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    return {a.arg for a in (*found.args.args, *found.args.kwonlyargs)}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.name)
def test_a_schedule_calls_its_flow_with_what_it_takes(schedule: Schedule) -> None:
    assert set(schedule.parameters) <= parameters(schedule.entrypoint) and "workspace" in schedule.parameters
    minute, hour, day, month, weekday = schedule.cron.split()
    assert (day, month) == ("*", "*") and schedule.description.endswith(".")
    said = {"Nightly": ("0", "2", "*"), "Hourly": (minute, "*", "*"), "Weekly": ("0", hour, weekday)}
    first = schedule.description.partition(".")[0]
    assert (minute, hour, weekday) == said.get(first, ("*/10", "*", "*"))


def test_names_are_unique() -> None:
    assert len(CRON) == len(SCHEDULES) and CRON["curate"] == "0 2 * * *"
