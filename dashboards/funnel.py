"""The funnel as the pages show it: rows dropped by each filter of each stage, and reasons of quarantine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dashboards.rows import Row, rows

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class StagePass:
    """One stage at one resolution bucket, with its filters in the order they are applied."""

    stage: str
    bucket: int | None
    filters: tuple[Row, ...]

    @property
    def entered(self) -> int:
        """Rows that reached the stage."""
        return max((f["entered"] or 0 for f in self.filters), default=0)

    @property
    def dropped(self) -> int:
        """Rows dropped by its filters."""
        return sum(f["dropped"] or 0 for f in self.filters)

    @property
    def quarantined(self) -> int:
        """Rows that could not be judged."""
        return sum(f["quarantined"] or 0 for f in self.filters)

    @property
    def left(self) -> int:
        """Rows that passed every filter."""
        return self.entered - self.dropped - self.quarantined


def load_funnel(con: duckdb.DuckDBPyConnection) -> list[StagePass]:
    """All stages and buckets, in the order rows pass through them."""
    filters = rows(con, "SELECT stage, bucket, filter, status, entered, dropped, quarantined FROM funnel")
    grouped: dict[tuple[str, int | None], list[Row]] = {}
    for row in filters:
        grouped.setdefault((row["stage"], row["bucket"]), []).append(row)
    return [StagePass(stage, bucket, tuple(group)) for (stage, bucket), group in grouped.items()]


def not_configured(passes: list[StagePass]) -> list[str]:
    """Filters of the policy that are not configured here, so not applied."""
    return sorted({f["filter"] for p in passes for f in p.filters if f["status"] != "applied"})


def drop_reasons(con: duckdb.DuckDBPyConnection) -> list[Row]:
    """Number of dropped rows per filter, largest first, each with an example."""
    return rows(
        con,
        "SELECT filter, count(*) AS n, arg_min(source_uri, sample_id) AS example, arg_min(score, sample_id) AS score,"
        " arg_min(threshold, sample_id) AS threshold, arg_min(survivor, sample_id) AS survivor"
        " FROM decisions WHERE outcome = 'dropped' GROUP BY filter ORDER BY n DESC, filter",
    )


def quarantine_reasons(con: duckdb.DuckDBPyConnection) -> list[Row]:
    """Number of quarantined rows per kind of fault, largest first, each with an example and its full reason."""
    return rows(
        con,
        "SELECT split_part(reason, ':', 1) AS fault, count(*) AS n, arg_min(source_uri, source_uri) AS example,"
        " arg_min(reason, source_uri) AS reason FROM quarantine GROUP BY fault ORDER BY n DESC, fault",
    )


def generated(con: duckdb.DuckDBPyConnection) -> list[Row]:
    """Number of remedy samples per round, capability and recipe: made, admitted, dropped."""
    return rows(
        con,
        "SELECT round, capability, recipe, count(*) AS made, count(*) FILTER (outcome = 'admitted') AS admitted,"
        " count(*) FILTER (outcome <> 'admitted') AS dropped FROM generated GROUP BY ALL"
        " ORDER BY round, capability, recipe",
    )
