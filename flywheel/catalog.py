"""DuckDB views over a workspace: the analysts' tables. A lens on the files, never their owner."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.ledger import Ledger
from flywheel.objects import register
from flywheel.schema import CASE_EVENTS, LEDGERS
from flywheel.workspace import UsageError, Workspace, read_json, replacing

if TYPE_CHECKING:
    import duckdb

# name → (meaning, columns with DuckDB type); the documented surface that `flywheel sql` and any DuckDB client see.
VIEWS: dict[str, tuple[str, str]] = {
    "samples": (
        "one row per readable input row of the pool",
        "sample_id VARCHAR, source_uri VARCHAR, source VARCHAR, task VARCHAR, width INTEGER, height INTEGER,"
        " caption VARCHAR",
    ),
    "decisions": (
        "what curation decided for each input row in the latest snapshot; outcome is admitted | dropped",
        "sample_id VARCHAR, source_uri VARCHAR, stage_reached VARCHAR, outcome VARCHAR, filter VARCHAR, score DOUBLE,"
        " threshold DOUBLE, survivor VARCHAR, survivor_uri VARCHAR",
    ),
    "quarantine": ("input rows that could not be read or scored", "source_uri VARCHAR, reason VARCHAR"),
    "funnel": (
        "rows entering and leaving each filter, in order; status is applied | not configured",
        "stage VARCHAR, bucket INTEGER, filter VARCHAR, status VARCHAR, entered BIGINT, dropped BIGINT,"
        " quarantined BIGINT",
    ),
    "captions": (
        "captions that a model wrote (use: fill | add | replace), or why its answer was refused",
        "sample_id VARCHAR, use VARCHAR, kind VARCHAR, model VARCHAR, prompt VARCHAR, caption VARCHAR,"
        " objects VARCHAR[], style VARCHAR, quoted VARCHAR[], watermark BOOLEAN, error VARCHAR",
    ),
    "generated": (
        "samples that a remedy retrieved or made for a capability, admitted or dropped by their entry checks",
        "sample_id VARCHAR, round INTEGER, capability VARCHAR, recipe VARCHAR, caption VARCHAR, outcome VARCHAR,"
        " filter VARCHAR, score DOUBLE, threshold DOUBLE",
    ),
}

# The fold of `flywheel.cases.events.fold`: the last round decides, within it the last event; of those recorded together
# the kind that comes last in a case's life.
_CASES = f"""
CREATE VIEW cases AS
WITH ordered AS (SELECT *, list_position({list(CASE_EVENTS)}, kind) AS place FROM case_events)
SELECT case_id,
       min(round) AS round,
       arg_min(capability, ("at", event_id)) AS capability,
       arg_max(track, ("at", event_id)) FILTER (track IS NOT NULL) AS track,
       CASE arg_max(kind, (round, "at", place)) FILTER (kind <> 'seen')
            WHEN 'passed' THEN 'closed' WHEN 'failed' THEN 're-opened'
            ELSE arg_max(kind, (round, "at", place)) FILTER (kind <> 'seen')
       END AS status,
       arg_min(prompt_id, ("at", event_id)) AS prompt_id,
       arg_min(prompt, ("at", event_id)) AS prompt,
       max(round) FILTER (kind = 'passed') AS fixed_in,
       coalesce(arg_min(evidence, ("at", event_id)) FILTER (kind = 'detected')->>'$.signals[0].image',
                format('samples/round-{{:04d}}-candidate/{{}}.png', min(round), arg_min(prompt_id, ("at", event_id)))
       ) AS image
FROM ordered GROUP BY case_id
"""

_ROUND_COSTS = """
CREATE VIEW round_costs AS
WITH spent AS (
    SELECT round, sum(cpu_seconds) AS cpu_seconds, sum(gpu_seconds) AS gpu_seconds, sum(wall_seconds) AS wall_seconds
    FROM costs GROUP BY round
), reviewed AS (
    SELECT round, count(*) AS reviews FROM reviews
    WHERE kind IN ('accepted', 'rejected') AND reviewer <> 'auto-approve' GROUP BY round
), repaired AS (
    SELECT round, count(DISTINCT case_id) AS fixed FROM case_events WHERE kind = 'passed' GROUP BY round
)
SELECT round, cpu_seconds, gpu_seconds, wall_seconds, coalesce(reviews, 0) AS reviews, coalesce(fixed, 0) AS fixed,
       cpu_seconds / fixed AS cpu_seconds_per_fixed, gpu_seconds / fixed AS gpu_seconds_per_fixed
FROM spent LEFT JOIN reviewed USING (round) LEFT JOIN repaired USING (round)
"""

CASE_COLUMNS = ("case_id", "round", "capability", "track", "status", "prompt_id", "prompt", "fixed_in", "image")

COST_COLUMNS = (
    "round",
    "cpu_seconds",
    "gpu_seconds",
    "wall_seconds",
    "reviews",
    "fixed",
    "cpu_seconds_per_fixed",
    "gpu_seconds_per_fixed",
)

# Views over ledgers: name → (meaning, columns, SQL).
DERIVED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "cases": ("each case as it stands after its last event", CASE_COLUMNS, _CASES),
    "round_costs": ("what each round, and each case that it fixed, cost; 0 is curation", COST_COLUMNS, _ROUND_COSTS),
}

# Shown after a run.
EXAMPLE = "select capability, track, status, count(*) as cases from cases group by all order by cases desc"


def connect(workspace: Workspace) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB connection with every view of the workspace; a table that has no file yet is empty.

    Extensions are never fetched. Cost: milliseconds; open one per question, so no view is ever stale.
    """
    import duckdb

    con = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    con.execute("SET TimeZone = 'UTC'")
    register(con, workspace.root)
    for name, (_, columns) in VIEWS.items():
        con.execute(f"CREATE VIEW {name} AS {_select(columns, _files(workspace, name))}")
    for name, schema in LEDGERS.items():
        columns = ", ".join(f"{f.name} {_duck(f.type)}" for f in schema)
        con.execute(f"CREATE VIEW {name} AS {_select(columns, Ledger(workspace, name).files())}")
    for _, _, sql in DERIVED.values():
        con.execute(sql)
    return con


def query(workspace: Workspace, sql: str) -> list[dict[str, Any]]:
    """Rows of one SELECT as dictionaries. Errors: `UsageError` with DuckDB's own message, or when it is no SELECT."""
    import duckdb

    con = connect(workspace)
    try:
        statements = con.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise UsageError("give exactly one SELECT: `flywheel sql` reads, it never writes")
        result = con.execute(statements[0])
        names = [d[0] for d in result.description]
        return [dict(zip(names, row)) for row in result.fetchall()]
    except duckdb.Error as error:
        raise UsageError(f"{type(error).__name__}: {error}") from error
    finally:
        con.close()


def documentation() -> list[dict[str, str]]:
    """One row per view: its name, meaning and columns."""
    views = [{"view": n, "meaning": meaning, "columns": columns} for n, (meaning, columns) in VIEWS.items()]
    ledgers = [
        {"view": n, "meaning": "append-only ledger", "columns": ", ".join(f"{f.name} {_duck(f.type)}" for f in schema)}
        for n, schema in LEDGERS.items()
    ]
    derived = [{"view": n, "meaning": meaning, "columns": ", ".join(c)} for n, (meaning, c, _) in DERIVED.items()]
    return [*views, *ledgers, *derived]


def export(workspace: Workspace, path: Path) -> Path:
    """Write every view as a table into one DuckDB file (no image bytes): what an analyst copies and keeps."""
    con = connect(workspace)
    names = [*VIEWS, *LEDGERS, *DERIVED]
    with replacing(path) as tmp:
        con.execute(f"ATTACH '{tmp}' AS out")
        for name in names:
            con.execute(f"CREATE TABLE out.{name} AS SELECT * FROM {name}")
            if name in VIEWS:
                con.execute(f"COMMENT ON TABLE out.{name} IS '{VIEWS[name][0]}'")
        con.execute("DETACH out")
    con.close()
    return path


def export_round(workspace: Workspace) -> Path | None:
    """The DuckDB file of the last finished round, named by it: made once, never replaced. None before the first."""
    rounds = [r["round"] for r in Ledger(workspace, "rounds").rows()]
    if not rounds:
        return None
    path = workspace.path("exports", f"round-{max(rounds):04d}.duckdb")
    return path if path.exists() else export(workspace, path)


def snapshot(workspace: Workspace) -> str | None:
    """Id of the latest committed data snapshot, or None before the first curation."""
    rows = Ledger(workspace, "snapshots").rows()
    return rows[-1]["snapshot"] if rows else None


def _files(workspace: Workspace, name: str) -> list[str]:
    """Parquet files behind a bulk view; those of the latest snapshot where the view is about one."""
    if name == "samples":
        # A shard belongs to the pool once its batch's manifest says so.
        manifests = sorted(workspace.path("pool").glob("*/manifest.json"))
        return [str(m.parent / s["path"]) for m in manifests for s in read_json(m)["shards"]]
    if name == "captions":
        return [str(p) for p in sorted(workspace.path("captions").glob("*/*/[!.]*.parquet"))]
    if name == "generated":
        return [str(p) for p in sorted(workspace.path("remedies").glob("*/generated.parquet"))]
    current = snapshot(workspace)
    if current is None:
        return []
    path = workspace.path("snapshots", current, f"{name}.parquet")
    return [str(path)] if path.exists() else []


def _select(columns: str, files: Iterable[str]) -> str:
    names = ", ".join(f'"{c.split()[0]}"' for c in columns.split(","))
    listed = ", ".join("'" + f.replace("'", "''") + "'" for f in files)
    if listed:
        return f"SELECT {names} FROM read_parquet([{listed}], union_by_name=true)"
    typed = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in (c.split() for c in columns.split(",")))
    return f"SELECT {typed} WHERE false"


def _duck(kind: Any) -> str:
    """DuckDB's name of the Arrow types that ledgers use."""
    names = {"string": "VARCHAR", "large_string": "VARCHAR", "int32": "INTEGER", "int64": "BIGINT", "bool": "BOOLEAN"}
    return names.get(str(kind), "DOUBLE" if str(kind) == "double" else "TIMESTAMPTZ")
