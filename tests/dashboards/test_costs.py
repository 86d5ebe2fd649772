"""Costs at stated prices, by step, by round and by fixed case."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from dashboards.costs import Prices, load_costs
from flywheel.catalog.database import connect
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Ingest, and two rounds of which the second fixes two cases."""
    workspace = Workspace(tmp_path / "w")
    spent = [(0, "ingest", 7200, 0), (1, "train", 3600, 3600), (2, "train", 3600, 7200), (2, "gate", 36, 0)]
    rows = [
        {"cost_id": str(n), "round": r, "step": step, "units": 10 * (step == "train"), "wall_seconds": cpu / 2}
        | {"cpu_seconds": float(cpu), "gpu_seconds": float(gpu)}
        for n, (r, step, cpu, gpu) in enumerate(spent)
    ]
    Ledger(workspace, "costs").append(rows, key="c")
    events = [
        {"event_id": str(n), "case_id": case, "round": 2, "kind": kind}
        for n, (case, kind) in enumerate([("a", "passed"), ("b", "passed"), ("b", "passed"), ("c", "failed")])
    ]
    Ledger(workspace, "case_events").append(events, key="e")
    return workspace


def test_hours_and_money_add_up(workspace: Workspace) -> None:
    with closing(connect(workspace, ("costs", "round_costs"))) as con:
        costs = load_costs(con, Prices(0.05, 2.0))
    assert [(s.step, s.times, s.units) for s in costs.steps] == [("ingest", 1, 0), ("train", 2, 20), ("gate", 1, 0)]
    train = costs.steps[1]
    assert (train.core_hours, train.gpu_hours, train.wall_hours) == (2.0, 3.0, 1.0)
    assert train.money == pytest.approx(2 * 0.05 + 3 * 2.0)
    assert [(r.round, r.fixed, r.money_per_fixed is None) for r in costs.rounds] == [
        (0, 0, True),
        (1, 0, True),
        (2, 2, False),
    ]
    assert costs.rounds[2].core_hours_per_fixed == pytest.approx(1.01 / 2)
    assert costs.money == pytest.approx(4.01 * 0.05 + 6.0) == sum(s.money for s in costs.steps)
    assert costs.money == pytest.approx(sum(r.money for r in costs.rounds))
    assert (costs.fixed, costs.money_per_fixed) == (2, pytest.approx(costs.money / 2))


def test_nothing_has_a_cost_before_the_first_step(tmp_path: Path) -> None:
    with closing(connect(Workspace(tmp_path / "w"), ("costs", "round_costs"))) as con:
        costs = load_costs(con, Prices(1.0, 1.0))
    assert (costs.steps, costs.rounds, costs.money, costs.money_per_fixed) == ([], [], 0, None)
