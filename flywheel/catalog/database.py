"""DuckDB views over a workspace: the analysts' tables. A lens on the files, never their owner."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.cases import fold
from flywheel.catalog import views
from flywheel.core import lens
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json, replacing
from flywheel.core.ledger import Ledger
from flywheel.core.lens import latest_snapshot
from flywheel.core.schema import LEDGERS
from flywheel.core.storage import parquet_list, quoted
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_ROUND_COSTS = """
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

_READS = {"round_costs": ("costs", "reviews", "case_events")}


@dataclass(frozen=True)
class Answer:
    """Columns and rows of a SELECT; `more` rows than were asked for were cut off."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    more: bool


def connect(
    workspace: Workspace, names: Iterable[str] = views.ALL, *, sealed: bool = False
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB connection with the views of the workspace that `names` names, and those they read.

    A view that has no file yet is empty. Extensions are never fetched. sealed: no statement can read any other file,
    write one, take more than a gigabyte or change a setting. Cost: a tenth of a second for all; open one per question,
    so no view is ever stale.
    """
    con = lens.connect(workspace)
    wanted = set(names)
    wanted |= {name for view in wanted for name in _READS.get(view, ())}
    read: list[str] = []
    for name, (_, schema) in views.ALL.items():
        if name in wanted:
            sql, files = _select(workspace, name, schema)
            con.execute(f"CREATE VIEW {name} AS {sql}")
            read += files
    if sealed:
        con.execute(f"SET memory_limit = '1GB'; SET temp_directory = ''; SET allowed_paths = {parquet_list(read)}")
        con.execute("SET enable_external_access = false; SET lock_configuration = true")
    return con


def query(workspace: Workspace, sql: str) -> list[dict[str, Any]]:
    """Rows of one SELECT as dictionaries. Errors: `UsageError` with DuckDB's own message, or when it is no SELECT."""
    answer = _answer(workspace, sql)
    return [dict(zip(answer.columns, row)) for row in answer.rows]


def ask(workspace: Workspace, sql: str, *, rows: int, seconds: float) -> Answer:
    """The first `rows` rows of a stranger's SELECT, in a sealed connection.

    Errors: `UsageError` as of `query`, and when it takes longer than `seconds`.
    """
    return _answer(workspace, sql, rows=rows, seconds=seconds)


def _answer(workspace: Workspace, sql: str, *, rows: int | None = None, seconds: float | None = None) -> Answer:
    import duckdb

    con = timer = None
    try:
        statements = duckdb.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise UsageError("give exactly one SELECT: questions read, they never write")
        named = [n for n in views.ALL if re.search(rf"\b{n}\b", sql, re.IGNORECASE)]
        con = connect(workspace, named, sealed=seconds is not None)
        if seconds is not None:
            timer = threading.Timer(seconds, con.interrupt)
            timer.start()
        result = con.execute(statements[0])
        found = result.fetchall() if rows is None else result.fetchmany(rows + 1)
        return Answer([d[0] for d in result.description], found[:rows], rows is not None and len(found) > rows)
    except duckdb.InterruptException as error:
        raise UsageError(f"it took longer than {seconds:g} s: ask for less, or use `flywheel sql`") from error
    except duckdb.Error as error:
        raise UsageError(f"{type(error).__name__}: {error}") from error
    finally:
        if timer is not None:
            timer.cancel()
        if con is not None:
            con.close()


def documentation() -> list[dict[str, str]]:
    """One row per view: its name, meaning and columns."""
    return [
        {"view": name, "meaning": meaning, "columns": ", ".join(f"{f.name} {lens.duck(f.type)}" for f in schema)}
        for name, (meaning, schema) in views.ALL.items()
    ]


def export(workspace: Workspace, path: Path) -> Path:
    """Write every view as a table, with comments, into one DuckDB file: what an analyst copies and keeps. No images."""
    con = connect(workspace)
    with replacing(path) as tmp:
        con.execute(f"ATTACH '{tmp}' AS out")
        for name, (meaning, schema) in views.ALL.items():
            con.execute(f"CREATE TABLE out.{name} AS SELECT * FROM {name}")
            con.execute(f"COMMENT ON TABLE out.{name} IS {quoted(meaning)}")
            for field in schema:
                con.execute(f'COMMENT ON COLUMN out.{name}."{field.name}" IS {quoted(views.meaning(field))}')
        con.execute("DETACH out")
    con.close()
    return path


def keep_cases(workspace: Workspace) -> Path | None:
    """Keep the fold of all cases, so that views open quickly; None where there is no case."""
    with closing(lens.connect(workspace)) as con:
        return fold.keep(workspace, con, *lens.ledger(workspace, "case_events"))


def export_round(workspace: Workspace) -> Path | None:
    """The DuckDB file of the last finished round, named by it: made once, never replaced. None before the first.

    Keeps the fold of all cases too.
    """
    keep_cases(workspace)
    rounds = [r["round"] for r in Ledger(workspace, "rounds").rows()]
    if not rounds:
        return None
    path = workspace.path("exports", f"round-{max(rounds):04d}.duckdb")
    return path if path.exists() else export(workspace, path)


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
    current = latest_snapshot(workspace)
    if current is None:
        return []
    path = workspace.path("snapshots", current, f"{name}.parquet")
    return [str(path)] if path.exists() else []


def _select(workspace: Workspace, name: str, schema: pa.Schema) -> tuple[str, list[str]]:
    """The SELECT behind a view, and the files that it names."""
    if name == "cases":
        return fold.select(workspace, *lens.ledger(workspace, "case_events"))
    if name == "round_costs":
        return _ROUND_COSTS, []
    if name in LEDGERS:
        return lens.ledger(workspace, name)
    files = _files(workspace, name)
    return lens.select(schema, files), files
