"""What rounds cost: core-hours, GPU-hours and money at stated prices, by step, by round and by fixed case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dashboards.rows import Row, rows

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Prices:
    """Prices of a core-hour and of a GPU-hour, in any currency."""

    core: float
    gpu: float

    def of(self, core_hours: float, gpu_hours: float) -> float:
        """Money for so many hours."""
        return self.core * core_hours + self.gpu * gpu_hours


@dataclass(frozen=True)
class StepCost:
    """One kind of step in all rounds. units: samples, optimiser steps or pictures that it worked on; money: a sum."""

    step: str
    times: int
    units: int
    core_hours: float
    gpu_hours: float
    wall_hours: float
    money: float


@dataclass(frozen=True)
class RoundCost:
    """One round; 0: ingest and curation. reviews: by people; fixed: cases; the last two are of one fixed case."""

    round: int
    core_hours: float
    gpu_hours: float
    wall_hours: float
    reviews: int
    fixed: int
    money: float
    core_hours_per_fixed: float | None
    money_per_fixed: float | None


@dataclass(frozen=True)
class Costs:
    """All finished steps: by step, most core-hours first, by round, and in all."""

    steps: list[StepCost]
    rounds: list[RoundCost]
    core_hours: float
    gpu_hours: float
    fixed: int
    money: float
    core_hours_per_fixed: float | None
    money_per_fixed: float | None


def load_costs(con: duckdb.DuckDBPyConnection, prices: Prices) -> Costs:
    """The costs of a workspace at these prices."""
    by_step = rows(
        con,
        """SELECT step, count(*) AS times, sum(units)::BIGINT AS units, sum(cpu_seconds) / 3600 AS core_hours,
                  sum(gpu_seconds) / 3600 AS gpu_hours, sum(wall_seconds) / 3600 AS wall_hours
        FROM costs GROUP BY step ORDER BY core_hours DESC, step""",
    )
    by_round = rows(
        con,
        """SELECT round, cpu_seconds / 3600 AS core_hours, gpu_seconds / 3600 AS gpu_hours,
                  wall_seconds / 3600 AS wall_hours, reviews, fixed FROM round_costs ORDER BY round""",
    )
    steps = [StepCost(**r, money=prices.of(r["core_hours"], r["gpu_hours"])) for r in by_step]
    rounds = [_round(r, prices) for r in by_round]
    core, gpu = sum(s.core_hours for s in steps), sum(s.gpu_hours for s in steps)
    money, fixed = prices.of(core, gpu), sum(r.fixed for r in rounds)
    return Costs(steps, rounds, core, gpu, fixed, money, _each(core, fixed), _each(money, fixed))


def _round(row: Row, prices: Prices) -> RoundCost:
    core, fixed = row["core_hours"], row["fixed"]
    money = prices.of(core, row["gpu_hours"])
    return RoundCost(**row, money=money, core_hours_per_fixed=_each(core, fixed), money_per_fixed=_each(money, fixed))


def _each(total: float, parts: int) -> float | None:
    return total / parts if parts else None
