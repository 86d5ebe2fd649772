"""What steps cost, measured as they run, and what the next round will cost at those rates."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import psutil

from flywheel.ledger import Ledger
from flywheel.workspace import Workspace, digest

Units = int | Callable[[Any], int]
"""Samples, optimiser steps or images that a step works on: a number, or a function of the step's result."""


class Meter:
    """Records one row of the costs ledger per finished step of a run."""

    def __init__(self, workspace: Workspace, run: int) -> None:
        self.ledger = Ledger(workspace, "costs")
        self.run = run

    def measure(self, round_: int, label: str, step: str, function: Callable[[], Any], units: Units) -> Any:
        """Call `function`, record what it took under `step`, and return its result. `label` is unique in the run."""
        wall, cpu = time.monotonic(), cpu_seconds()
        result = function()
        wall = time.monotonic() - wall
        row = {
            "cost_id": digest(self.run, label)[:32],
            "round": round_,
            "step": step,
            "units": units(result) if callable(units) else units,
            "wall_seconds": wall,
            "cpu_seconds": cpu_seconds() - cpu,
            "gpu_seconds": wall * _gpus(),
        }
        self.ledger.append([row], key=f"cost/{self.run}/{label}")
        return result


def cpu_seconds() -> float:
    """User and system time of this process and of everything it started, ended or not."""
    own = sum(os.times()[:2])
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = own + ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue  # it ended while we looked
        total += times.user + times.system
    return total


def rates(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """{step: {"cpu": s, "gpu": s, "wall": s} per unit}: the dearest seen, as a resumed step looks cheap."""
    out: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["units"]:
            found = out.setdefault(row["step"], {"cpu": 0.0, "gpu": 0.0, "wall": 0.0})
            for key in found:
                found[key] = max(found[key], row[f"{key}_seconds"] / row["units"])
    return out


def estimate(
    plan: Mapping[str, Any],
    known: Mapping[str, Mapping[str, float]],
    *,
    prompts: int,
    review_seconds: float,
    reviews: int,
) -> dict[str, Any]:
    """What a plan will cost: samples, optimiser steps, images, CPU- and GPU-hours, review minutes.

    Hours are None where some step was never measured: `unmeasured` names it. `reviews` per sample, 0 when unattended.
    """
    arms = 2 if plan["targets"] else 1
    samples = sum(m.get("samples", 0) for m in plan["mix"])
    units = {
        "collect": samples,
        "train": plan["steps"] * arms,
        "evaluate": prompts * arms,
        "route": plan["cases_open"],
    }
    needed = {step: n for step, n in units.items() if n}
    unmeasured = sorted(needed.keys() - known.keys())
    hours = {
        key: None if unmeasured else sum(n * known[step][key] for step, n in needed.items()) / 3600
        for key in ("cpu", "gpu", "wall")
    }
    return {
        "samples": samples,
        "optimiser_steps": units["train"],
        "images": prompts * arms,
        "cpu_hours": hours["cpu"],
        "gpu_hours": hours["gpu"],
        "wall_hours": hours["wall"],
        "review_minutes": samples * reviews * review_seconds / 60,
        "unmeasured": unmeasured,
    }


def _gpus() -> int:
    torch = sys.modules.get("torch")  # a step that never imported it used none
    return torch.cuda.device_count() if torch and torch.cuda.is_available() else 0
