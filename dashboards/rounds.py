"""Rounds as the pages show them: verdict, plan, failure rates per arm with intervals, lines of the gate."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
class CapabilityRates:
    """Failure rates of one capability in one round, by evaluated arm, and its line of the gate.

    unseen: the candidate's rate on the hidden prompts; None if there are none.
    """

    capability: str
    prompts: int
    rates: dict[str, Rate]
    targeted: bool
    gate: Row | None
    unseen: Rate | None = None


@dataclass(frozen=True)
class Round:
    """One finished round. `plan` is None if its file is missing."""

    number: int
    verdict: str
    checkpoint: str
    incumbent: str | None
    snapshot: str
    at: datetime
    result: Row
    plan: RoundPlan | None = None

    @property
    def targets(self) -> list[str]:
        """Capabilities that the round targeted."""
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
    def capabilities(self) -> list[CapabilityRates]:
        """Rates of every capability: targeted ones first, then by name."""
        gate = {line["check"]: line for line in self.result.get("gate") or []}
        prompts = self.result.get("prompts") or {}
        out = []
        for name in self.result.get("failure_rate") or {}:
            n = int(prompts.get(name) or 0)
            shares = {arm: (self.result.get(key) or {}).get(name) for arm, key in _RATES.items()}
            rates = {arm: wilson(share, n) for arm, share in shares.items() if share is not None}
            out.append(CapabilityRates(name, n, rates, name in self.targets, gate.get(name), self._unseen(name)))
        return sorted(out, key=lambda c: (not c.targeted, c.capability))

    @property
    def has_unseen(self) -> bool:
        """Whether hidden prompts were judged."""
        return bool(self.result.get("hidden_failure_rate"))

    def _unseen(self, capability: str) -> Rate | None:
        share = (self.result.get("hidden_failure_rate") or {}).get(capability)
        return (
            None if share is None else wilson(share, int((self.result.get("hidden_prompts") or {}).get(capability, 0)))
        )

    @property
    def arms(self) -> list[str]:
        """Arms that were evaluated."""
        return [arm for arm in ARMS if any(arm in c.rates for c in self.capabilities)]

    def mean_rate(self, arm: str) -> float | None:
        """Failure rate of an arm over all prompts of the targeted capabilities, or of all if none is targeted."""
        counted = [c for c in self.capabilities if arm in c.rates and (c.targeted or not self.targets)]
        total = sum(c.prompts for c in counted)
        return sum(c.rates[arm].value * c.prompts for c in counted) / total if total else None

    @property
    def change(self) -> float | None:
        """Relative change of the targeted failure rate against the incumbent: -0.3 is 30 % fewer failures."""
        before, after = self.mean_rate("incumbent"), self.mean_rate("candidate")
        return (after - before) / before if before and after is not None else None


def wilson(share: float, n: int) -> Rate:
    """95 % Wilson score interval of a share observed on `n` prompts (Wilson 1927); [0, 1] if n is 0."""
    if n <= 0:
        return Rate(share, 0.0, 1.0)
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return Rate(share, max(0.0, centre - half), min(1.0, centre + half))


def load_rounds(workspace: Workspace, con: duckdb.DuckDBPyConnection) -> list[Round]:
    """All finished rounds, oldest first."""
    finished = rows(con, "SELECT * FROM rounds ORDER BY round")
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
        for r in finished
    ]


def counts(con: duckdb.DuckDBPyConnection) -> Row | None:
    """Input, admitted, dropped and quarantined rows of the latest snapshot; None before the first."""
    latest = rows(con, 'SELECT * FROM snapshots ORDER BY "at" DESC LIMIT 1')  # `at` is a DuckDB keyword
    return latest[0] if latest else None


def _plan(workspace: Workspace, number: int) -> RoundPlan | None:
    path = workspace.round(number).plan
    return RoundPlan.read(path) if path.exists() else None
