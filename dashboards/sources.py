"""What sources yield: rows that each source, and each licence, brought into the latest snapshot, and their fate."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from dashboards.rows import Row, rows
from flywheel.catalog.database import connect
from flywheel.core.lens import latest_snapshot
from flywheel.core.schema import STAGES
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

MOST = 200  # sources, and licences, that are listed: those with most rows

# One row per (source, licence, fate): few, however many samples there are. Score tables tell licences; a pool that was
# never scored has none.
_FATES = """
CREATE TEMP TABLE fates AS
SELECT known.source, known.license, outcome, stage_reached AS stage, filter, count(*) AS n
FROM decisions LEFT JOIN {known} known USING (sample_id, source_uri) GROUP BY ALL
"""


@dataclass(frozen=True)
class Yield:
    """The rows of one source or licence: input = admitted + dropped.

    name: None where it is not stated; stages: admitted rows by the last stage that they passed; reasons: dropped rows
    by filter, most frequent first.
    """

    name: str | None
    input: int
    admitted: int
    dropped: int
    stages: dict[str, int]
    reasons: dict[str, int]


@dataclass(frozen=True)
class Sources:
    """Yields in the latest snapshot, None before the first; quarantined: inputs that no row could be made of.

    all_sources, all_licences: how many there are; those with most rows are listed.
    """

    snapshot: str | None
    sources: list[Yield]
    licences: list[Yield]
    all_sources: int
    all_licences: int
    quarantined: int
    stages: tuple[str, ...] = STAGES


def load_sources(workspace: Workspace) -> Sources:
    """The yields of the latest snapshot; read once, because a snapshot changes only if something is erased from it."""
    snapshot = latest_snapshot(workspace)
    if snapshot is None:
        return Sources(None, [], [], 0, 0, 0)
    decisions = workspace.snapshot(snapshot, "decisions")
    return _sources(workspace, snapshot, decisions.stat().st_mtime_ns if decisions.exists() else 0)


@lru_cache(maxsize=4)
def _sources(workspace: Workspace, snapshot: str, changed: int) -> Sources:
    with closing(connect(workspace, ("decisions", "samples", "scores", "snapshots"))) as con:
        scored = rows(con, "SELECT 1 AS one FROM scores LIMIT 1")
        known = "scores" if scored else "(SELECT *, NULL::VARCHAR AS license FROM samples)"
        con.execute(_FATES.format(known=known))
        counts = rows(con, 'SELECT quarantined FROM snapshots ORDER BY "at" DESC LIMIT 1')
        sources, all_sources = _yields(con, "source")
        licences, all_licences = _yields(con, "license")
    return Sources(snapshot, sources, licences, all_sources, all_licences, counts[0]["quarantined"])


def _yields(con: duckdb.DuckDBPyConnection, column: str) -> tuple[list[Yield], int]:
    """(the yields of a column's most frequent values, number of all values)."""
    number = rows(con, f"SELECT count(*) AS n FROM (SELECT DISTINCT {column} FROM fates)")
    found = rows(
        con,
        f"""WITH largest AS (
            SELECT {column} AS name, sum(n) AS input FROM fates GROUP BY name ORDER BY input DESC, name LIMIT {MOST}
        )
        SELECT l.name, l.input, outcome, stage, filter, sum(n)::BIGINT AS n
        FROM largest l JOIN fates ON l.name IS NOT DISTINCT FROM fates.{column}
        GROUP BY ALL ORDER BY l.input DESC, l.name, n DESC, filter, stage""",
    )
    groups: dict[str | None, list[Row]] = {}
    for row in found:
        groups.setdefault(row["name"], []).append(row)
    return [_yield(name, group) for name, group in groups.items()], number[0]["n"]


def _yield(name: str | None, fates: list[Row]) -> Yield:
    stages: dict[str, int] = {}
    reasons: dict[str, int] = {}
    for fate in fates:
        table, key = (stages, fate["stage"]) if fate["outcome"] == "admitted" else (reasons, fate["filter"])
        table[key or "not stated"] = table.get(key or "not stated", 0) + fate["n"]
    admitted, dropped = sum(stages.values()), sum(reasons.values())
    return Yield(name, admitted + dropped, admitted, dropped, dict(sorted(stages.items())), reasons)
