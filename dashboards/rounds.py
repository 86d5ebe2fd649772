"""Rounds as the pages show them: verdict, plan, failure rates per arm with intervals, gate lines."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dashboards.rows import Row, rows
from flywheel.core.records import RoundPlan
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    from datetime import datetime

    import duckdb

ARMS = ("incumbent", "candidate", "control")
_RATES = {"incumbent": "incumbent_failure_rate", "candidate": "failure_rate", "control": "control_failure_rate"}
_Z = 1.959964  # 95 %


@dataclass(frozen=True)
class Rate:
    """A failure rate and its 95 % interval, each a share in [0, 1]."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """One capability of one round: a rate per arm that was evaluated, and what the gate said."""

    capability: str
    prompts: int
    rates: dict[str, Rate]
    targeted: bool
    gate: Row | None


@dataclass(frozen=True)
class Round:
    """One finished round. `plan` is empty when its file is gone."""

    number: int
    verdict: str
    checkpoint: str
    incumbent: str | None
    snapshot: str
    at: datetime
    result: Row
    plan: Row = field(default_factory=dict)

    @property
    def targets(self) -> list[str]:
        """Capabilities that the round set out to repair."""
        return list(self.result.get("targets") or [])

    @property
    def fixed(self) -> list[str]:
        """Cases that failed on the incumbent and pass on the candidate."""
        return list(self.result.get("fixed") or [])

    @property
    def broken(self) -> list[str]:
        """Cases that passed on the incumbent and fail on the candidate."""
        return list(self.result.get("broken") or [])

    @property
    def lines(self) -> list[Line]:
        """One line per capability: targeted ones first, then by name."""
        gate = {line["check"]: line for line in self.result.get("gate") or []}
        prompts = self.result.get("prompts") or {}
        out = []
        for capability in self.result.get("failure_rate") or {}:
            n = int(prompts.get(capability) or 0)
            found = {arm: (self.result.get(key) or {}).get(capability) for arm, key in _RATES.items()}
            rates = {arm: wilson(value, n) for arm, value in found.items() if value is not None}
            out.append(Line(capability, n, rates, capability in self.targets, gate.get(capability)))
        return sorted(out, key=lambda line: (not line.targeted, line.capability))

    @property
    def arms(self) -> list[str]:
        """Arms that were evaluated."""
        return [arm for arm in ARMS if any(arm in line.rates for line in self.lines)]

    def mean_rate(self, arm: str) -> float | None:
        """Failure rate of an arm over all prompts of the targeted capabilities (of all, when none is targeted)."""
        lines = [x for x in self.lines if arm in x.rates and (x.targeted or not self.targets)]
        total = sum(x.prompts for x in lines)
        return sum(x.rates[arm].value * x.prompts for x in lines) / total if total else None

    @property
    def change(self) -> float | None:
        """Relative change of the targeted failure rate against the incumbent; -0.3 means 30 % fewer failures."""
        before, after = self.mean_rate("incumbent"), self.mean_rate("candidate")
        return (after - before) / before if before and after is not None else None


def wilson(share: float, n: int) -> Rate:
    """95 % Wilson score interval of a share observed on `n` prompts (Wilson 1927); [0, 1] where n is 0."""
    if n <= 0:
        return Rate(share, 0.0, 1.0)
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return Rate(share, max(0.0, centre - half), min(1.0, centre + half))


def load_rounds(workspace: Workspace, con: duckdb.DuckDBPyConnection) -> list[Round]:
    """Every finished round, oldest first."""
    found = rows(con, "SELECT * FROM rounds ORDER BY round")
    return [
        Round(
            number=r["round"],
            verdict=r["verdict"],
            checkpoint=r["checkpoint"],
            incumbent=r["incumbent"],
            snapshot=r["snapshot"],
            at=r["at"],
            result=json.loads(r["result"] or "{}"),
            plan=_plan(workspace, r["round"]),
        )
        for r in found
    ]


def counts(con: duckdb.DuckDBPyConnection) -> Row | None:
    """Input, admitted, dropped and quarantined rows of the latest snapshot; None before the first."""
    found = rows(con, 'SELECT * FROM snapshots ORDER BY "at" DESC LIMIT 1')  # `at` is a DuckDB keyword
    return found[0] if found else None


def _plan(workspace: Workspace, number: int) -> dict[str, Any]:
    path = workspace.round(number).plan
    return RoundPlan.read(path).as_dict() if path.exists() else {}
