"""Measured costs of steps, and the estimated cost of the next round at the measured rates."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import psutil

from flywheel.core.files import digest
from flywheel.core.ledger import Ledger
from flywheel.core.records import Remedy, RoundPlan
from flywheel.core.workspace import Workspace

Units = int | Callable[[Any], int]
"""Number of samples, optimiser steps or images that a step works on, or a function of the step's result."""


class Meter:
    """Records one row of the costs ledger per finished step of a run."""

    def __init__(self, workspace: Workspace, run: int) -> None:
        self.ledger = Ledger(workspace, "costs")
        self.run = run

    def measure(self, round_: int, label: str, step: str, function: Callable[[], Any], units: Units) -> Any:
        """Call `function`, record its cost under `step`, and return its result. `label` is unique in the run."""
        with CpuTime() as cpu:
            wall = time.monotonic()
            result = function()
            wall = time.monotonic() - wall
        row = {
            "cost_id": digest(self.run, label)[:32],
            "round": round_,
            "step": step,
            "units": units(result) if callable(units) else units,
            "wall_seconds": wall,
            "cpu_seconds": cpu.seconds,
            "gpu_seconds": wall * _gpus(),
        }
        self.ledger.append([row], key=f"cost/{self.run}/{label}")
        return result


class CpuTime:
    """Context manager: `seconds` of user and system time of this process and all processes it started in the block.

    A thread samples the process tree every second: processes that others reap (Ray's workers) are gone at the end.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._times: dict[tuple[int, float], float] = {}  # (pid, start) → CPU seconds when last sampled
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> CpuTime:
        self._sample()
        self._before = dict(self._times)
        self._waited = _waited()
        self._thread.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        spent = {k: v - self._before.get(k, 0.0) for k, v in self._times.items()}
        me = next(k for k in spent if k[0] == os.getpid())
        # Children that started and ended between two samples appear only in the times of children waited for.
        self.seconds = spent[me] + max(sum(spent.values()) - spent[me], _waited() - self._waited)

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            self._sample()

    def _sample(self) -> None:
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            try:
                times = process.cpu_times()
                self._times[process.pid, process.create_time()] = times.user + times.system
            except psutil.NoSuchProcess:
                continue  # it ended during the sample


def _waited() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def rates(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """{step: {"cpu", "gpu", "wall": seconds per unit}}, the highest observed, because a resumed step under-reports."""
    out: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["units"]:
            rate = out.setdefault(row["step"], {"cpu": 0.0, "gpu": 0.0, "wall": 0.0})
            for key in rate:
                rate[key] = max(rate[key], row[f"{key}_seconds"] / row["units"])
    return out


def estimate(
    plan: RoundPlan,
    known: Mapping[str, Mapping[str, float]],
    *,
    images: int,
    prompts: int = 0,
    review_seconds: float,
    reviews: int,
) -> dict[str, Any]:
    """The estimated cost of a plan: samples, optimiser steps, images, CPU- and GPU-hours, review minutes.

    known: `rates`; images: of one evaluation; prompts: of the suite, drawn once for the candidate without its RL and
    for the student; reviews: per sample, 0 for unattended runs. Hours are None while a step has no measured rate;
    `unmeasured` lists those steps.
    """
    trained = 2 if plan.aimed else 1
    others = bool(plan.steps and plan.updates("rl", "grpo")) + bool(plan.updates(None, "distil"))
    drawn = images * trained + prompts * others
    samples = sum(m.samples or 0 for m in plan.mix)
    units = {
        **{step: n for remedy in plan.remedies for step, n in units_of(remedy).items()},
        "collect": samples,
        "train": plan.steps * trained,
        "evaluate": drawn,
        "route": plan.cases_open,
    }
    unmeasured = sorted(step for step, n in units.items() if n and step not in known)
    return {
        "samples": samples,
        "optimiser_steps": units["train"],
        "images": drawn,
        **_hours(units, known),
        "review_minutes": samples * reviews * review_seconds / 60,
        "unmeasured": unmeasured,
    }


def listed(plan: RoundPlan, known: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """The plan's steps by track, in their order, each with its reason and its hours at the measured rates."""
    rows = []
    for remedy in plan.remedies:
        values = {k: v for k, v in asdict(remedy).items() if v is not None and k != "case_ids"}
        units = units_of(remedy)
        if "train" in units and plan.aimed:
            units["train"] *= 2  # the control trains as long
        rows.append({"track": remedy.track, **values, "cost": _hours(units, known)})
    return rows


def units_of(remedy: Remedy) -> dict[str, int]:
    """{step of the run: units that the remedy gives it}."""
    updates = remedy.updates or 0
    names = {
        ("pretraining", "data"): {"collect": remedy.samples or 0, "train": updates},
        ("rl", "grpo"): {"reinforce": updates},
        ("prompt_enhancement", "sft"): {"fine_tune": updates},
        ("prompt_enhancement", "grpo"): {"reinforce_enhancer": updates},
        (None, "distil"): {"distil": updates},
    }
    return names.get((remedy.track, remedy.kind), {})


def _hours(units: Mapping[str, int], known: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    """{"cpu_hours", "gpu_hours", "wall_hours"} of these units; None while a step has no measured rate."""
    needed = {step: n for step, n in units.items() if n}
    measured = needed.keys() <= known.keys()
    return {
        f"{key}_hours": sum(n * known[step][key] for step, n in needed.items()) / 3600 if measured else None
        for key in ("cpu", "gpu", "wall")
    }


def _gpus() -> int:
    torch = sys.modules.get("torch")  # a step that never imported torch used no GPU
    return torch.cuda.device_count() if torch and torch.cuda.is_available() else 0
