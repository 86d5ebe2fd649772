"""A score as a facet of the data browser: its histogram over the pool, and the thresholds of the policy on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from curation.policy.snapshots import policy_of
from dashboards.rows import rows
from flywheel.catalog.views import ALL, meaning
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

BINS = 40
_PROBED = 10_000  # rows in which a score must occur to be offered
_NUMBERS = ("DOUBLE", "FLOAT", "INTEGER", "BIGINT", "UBIGINT")


@dataclass(frozen=True)
class Threshold:
    """A threshold of the policy: its path, such as `S1.entropy.min`, and its value."""

    path: str
    value: float


@dataclass(frozen=True)
class ScoreFacet:
    """A score in the pool: the ends of its range, rows in equal parts of it, and the policy's thresholds on it."""

    name: str
    low: float
    high: float
    bins: tuple[int, ...]
    thresholds: Sequence[Threshold]

    def place(self, value: float) -> float:
        """Where a value is in the range, as a share."""
        return (value - self.low) / ((self.high - self.low) or 1.0)


@cache
def meanings() -> dict[str, str]:
    """What each score of ours measures, with its unit."""
    return {field.name: meaning(field) for field in ALL["scores"][1] if "." in field.name}


def offered(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Names of the scores that are numbers, and that the pool has."""
    names = [
        r["column_name"]
        for r in rows(con, "DESCRIBE scores")
        if "." in r["column_name"] and r["column_type"] in _NUMBERS
    ]
    if not names:
        return []
    counted = ", ".join(f'count("{n}")' for n in names)
    counts = con.execute(f"SELECT {counted} FROM (SELECT * FROM scores LIMIT {_PROBED})").fetchall()[0]
    return [n for n, count in zip(names, counts) if count]


def facet(workspace: Workspace, con: duckdb.DuckDBPyConnection, snapshot: str, name: str) -> ScoreFacet | None:
    """The facet of a score that is offered; None if no row of the pool has a finite value of it."""
    finite = f'(SELECT "{name}"::DOUBLE AS x FROM scores WHERE isfinite("{name}"::DOUBLE))'
    ((low, high),) = con.execute(f"SELECT min(x), max(x) FROM {finite}").fetchall()
    if low is None:
        return None
    part = f"least({BINS - 1}, floor((x - {low!r}) / {high - low or 1.0!r} * {BINS}))::INTEGER"
    counted = {r["part"]: r["n"] for r in rows(con, f"SELECT {part} AS part, count(*) AS n FROM {finite} GROUP BY 1")}
    policy = policy_of(workspace, snapshot)
    thresholds = [
        Threshold(f"{stage.name}.{line.name}.{bound}", float(value))
        for stage in (policy.stages if policy else ())
        for line in stage.filters
        for bound in ("min", "max")
        if line.score == name and (value := getattr(line, bound)) is not None
    ]
    return ScoreFacet(name, low, high, tuple(counted.get(n, 0) for n in range(BINS)), thresholds)
