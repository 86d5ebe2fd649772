"""Costs as measured, and the estimates that follow from them."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest

from flywheel.catalog import database as catalog
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.rounds.costs import CpuTime, Meter, estimate, rates
from tests.flywheel.plans import entry, round_plan
from tests.flywheel.rounds.verdicts import finished_rounds


def test_costs_are_measured_once_and_give_the_next_rounds_estimate(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    meter = Meter(workspace, 1)
    assert meter.measure(2, "round 2: train", "train", lambda: sum(range(2_000_000)), 100) == sum(range(2_000_000))
    meter.measure(2, "round 2: route", "route", lambda: 5, int)
    meter.measure(2, "round 2: route", "route", lambda: 5, int)
    costs = Ledger(workspace, "costs").rows()
    assert [(r["step"], r["units"]) for r in costs] == [("train", 100), ("route", 5)]
    assert costs[0]["cpu_seconds"] > 0 and costs[0]["gpu_seconds"] == 0
    plan = round_plan(2, entry("base", 0.5), entry("count", 0.5, samples=40), targets=("count",))
    known = rates(costs) | {"collect": {"cpu": 1, "gpu": 0, "wall": 1}}
    cost = estimate(plan, known, images=30, review_seconds=15, reviews=2)
    assert (cost["samples"], cost["optimiser_steps"], cost["images"], cost["review_minutes"]) == (40, 100, 60, 20)
    assert cost["cpu_hours"] is None and cost["unmeasured"] == ["evaluate"]
    known["evaluate"] = {"cpu": 2, "gpu": 0, "wall": 2}
    cost = estimate(plan, known, images=30, review_seconds=15, reviews=2)
    assert cost["cpu_hours"] == pytest.approx((40 + 120 + 100 * known["train"]["cpu"]) / 3600)


def burn(seconds: float) -> None:
    began = time.process_time()
    while time.process_time() - began < seconds:
        pass


def test_cpu_time_counts_children_that_have_ended():
    with CpuTime() as cpu:
        child = multiprocessing.get_context("fork").Process(target=burn, args=(0.4,))
        child.start()
        child.join()
        burn(0.2)
    assert cpu.seconds > 0.55


def test_cost_per_fixed_case(tmp_path: Path):
    workspace = finished_rounds(tmp_path / "w", "PROMOTE", "PROMOTE")
    row = {"cost_id": "c", "round": 2, "step": "train", "units": 1}
    row |= {"wall_seconds": 9.0, "cpu_seconds": 12.0, "gpu_seconds": 0.0}
    Ledger(workspace, "costs").append([row, row | {"cost_id": "d", "round": 1}], key="c")
    by_round = {r["round"]: r for r in catalog.query(workspace, "select * from round_costs")}
    assert (by_round[2]["fixed"], by_round[2]["cpu_seconds_per_fixed"]) == (1, 12.0)
    assert (by_round[1]["fixed"], by_round[1]["cpu_seconds_per_fixed"]) == (0, None)
