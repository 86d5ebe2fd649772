"""DuckDB views of a workspace: the analysts' tables. They read the workspace's files and never change them."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from flywheel.cases import fold
from flywheel.catalog import scores, views
from flywheel.core import lens
from flywheel.core.errors import UsageError
from flywheel.core.exports import TABLES, remember
from flywheel.core.files import read_json, replacing
from flywheel.core.ledger import Ledger
from flywheel.core.lens import latest_snapshot
from flywheel.core.records import Manifest
from flywheel.core.schema import LEDGERS
from flywheel.core.scratch import Scratch
from flywheel.core.storage import parquet_list, pattern, quoted, read_parquet, readable
from flywheel.core.workspace import Workspace
from flywheel.remedies import pool_map
from flywheel.signals.trust import load_trust

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

# Each snapshot once, with the time at which it became the latest: again, if a policy led back to it.
_SNAPSHOTS = """SELECT * FROM (<events>)
    QUALIFY row_number() OVER (PARTITION BY snapshot ORDER BY "at" DESC) = 1"""
# The last event of a sample and a tag decides.
_TAGS = """
SELECT sample_id, tag, arg_max("by", place) AS "by", max("at") AS "at"
FROM (SELECT *, {'at': "at", 'id': event_id} AS place FROM (<events>))
GROUP BY sample_id, tag HAVING arg_max(kind, place) = 'added'
"""

_READS = {"round_costs": ("costs", "reviews", "case_events")}


@dataclass(frozen=True)
class Answer:
    """Columns and rows of a SELECT; `more`: there were further rows, which were cut off."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    more: bool


def connect(
    workspace: Workspace, names: Iterable[str] = views.ALL, *, sealed: bool = False
) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB connection with the views `names`, the views that they read, and the macro `case_id`.

    A view without files is empty. Extensions are never downloaded. sealed: no statement can read any other file, write
    a file, use more than a gigabyte of memory or change a setting. All views open in a tenth of a second; open a new
    connection per question, so that no view is stale.
    """
    con = lens.connect(workspace)
    con.execute(fold.CASE_ID)
    wanted = set(names)
    wanted |= {name for view in wanted for name in _READS.get(view, ())}
    read: list[str] = []
    for name, (_, schema) in views.ALL.items():
        if name in wanted:
            sql, files = _select(workspace, name, schema)
            con.execute(f"CREATE VIEW {name} AS {sql}")
            read += files
    if sealed:
        allowed = parquet_list({*read, *map(pattern, read)})
        con.execute(f"SET memory_limit = '1GB'; SET temp_directory = ''; SET allowed_paths = {allowed}")
        con.execute("SET enable_external_access = false; SET lock_configuration = true")
    return con


def told(error: Exception) -> str:
    """DuckDB's message; where it knows no such table, also what lists those that there are."""
    unknown = "Table with name" in str(error)
    return f"{type(error).__name__}: {error}" + ("\n`flywheel tables` lists the views" if unknown else "")


def query(workspace: Workspace, sql: str) -> list[dict[str, Any]]:
    """Rows of one SELECT as dictionaries. Errors: `UsageError` with DuckDB's message, or for any other statement.

    >>> import flywheel as fw
    >>> fw.query(fw.Workspace("empty"), "select count(*) as cases from cases")
    [{'cases': 0}]
    """
    answer = _answer(workspace, sql)
    return [dict(zip(answer.columns, row)) for row in answer.rows]


def ask(workspace: Workspace, sql: str, *, rows: int, seconds: float) -> Answer:
    """The first `rows` rows of an untrusted SELECT, run in a sealed connection.

    Errors: `UsageError` as in `query`, and if it takes longer than `seconds`.
    """
    return _answer(workspace, sql, rows=rows, seconds=seconds)


def _answer(workspace: Workspace, sql: str, *, rows: int | None = None, seconds: float | None = None) -> Answer:
    import duckdb

    con = timer = None
    try:
        statements = duckdb.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise UsageError("give exactly one SELECT statement: queries only read")
        con = connect(workspace, names_in(sql), sealed=seconds is not None)
        if seconds is not None:
            timer = threading.Timer(seconds, con.interrupt)
            timer.start()
        result = con.execute(statements[0])
        fetched = result.fetchall() if rows is None else result.fetchmany(rows + 1)
        columns = [d[0] for d in result.description or ()]
        return Answer(columns, fetched[:rows], rows is not None and len(fetched) > rows)
    except duckdb.InterruptException as error:
        raise UsageError(f"the query took longer than {seconds:g} s: ask for less, or use `flywheel sql`") from error
    except duckdb.Error as error:
        raise UsageError(told(error)) from error
    finally:
        if timer is not None:
            timer.cancel()
        if con is not None:
            con.close()


def names_in(sql: str) -> list[str]:
    """Views that a query may read."""
    return [n for n in views.ALL if re.search(rf"\b{n}\b", sql, re.IGNORECASE)]


def pictures(workspace: Workspace, sample_ids: Iterable[str]) -> dict[str, bytes]:
    """{sample_id: encoded picture} of those that are in the pool."""
    files, wanted = _files(workspace, "samples"), sorted(set(sample_ids))
    if not files or not wanted:
        return {}
    with closing(lens.connect(workspace)) as con:
        select = f"SELECT sample_id, image FROM {read_parquet(files)} WHERE sample_id IN (SELECT unnest(?))"
        return dict(con.execute(select, [wanted]).fetchall())


def documentation() -> list[dict[str, str]]:
    """One row per view: its name, meaning and columns."""
    return [
        {"view": name, "meaning": meaning, "columns": ", ".join(f"{f.name} {lens.duck(f.type)}" for f in schema)}
        for name, (meaning, schema) in views.ALL.items()
    ]


def export(workspace: Workspace, path: Path) -> Path:
    """Write every view as a table, with comments and without images, to one DuckDB file that analysts can copy.

    >>> import flywheel as fw
    >>> from pathlib import Path
    >>> fw.export(fw.Workspace("empty"), Path("copy.duckdb")).exists()
    True

    Errors: `UsageError` if its folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {path} cannot be written ({error.strerror}): pass another place") from error
    remember(workspace, TABLES, path, {})
    con = connect(workspace)
    # DuckDB cuts the name of its log at a "?": the file is written where no folder has one.
    with replacing(path) as final, Scratch() as folder:
        made = Path(folder, "export.duckdb")
        con.execute(f"ATTACH {quoted(str(made))} AS out")
        for name, (meaning, schema) in views.ALL.items():
            con.execute(f"CREATE TABLE out.{name} AS SELECT * FROM {name}")
            con.execute(f"COMMENT ON TABLE out.{name} IS {quoted(meaning)}")
            for field in schema:
                con.execute(f'COMMENT ON COLUMN out.{name}."{field.name}" IS {quoted(views.meaning(field))}')
        con.execute("DETACH out")
        shutil.copyfile(made, final)
    con.close()
    return path


def keep_cases(workspace: Workspace) -> Path | None:
    """Write the kept copy of all cases, so that views open quickly; None without cases."""
    with closing(lens.connect(workspace)) as con:
        return fold.keep(workspace, con, *lens.ledger(workspace, "case_events"))


def export_round(workspace: Workspace) -> Path | None:
    """Export the last finished round, once, to a DuckDB file named by the round; None before the first round.

    Writes the kept copy of all cases too.
    """
    keep_cases(workspace)
    rounds = [r["round"] for r in Ledger(workspace, "rounds").rows()]
    if not rounds:
        return None
    path = workspace.round(max(rounds)).export
    return path if path.exists() else export(workspace, path)


def _files(workspace: Workspace, name: str) -> list[str]:
    """Parquet files of a bulk view; those of the latest snapshot if the view is about a snapshot."""
    if name == "samples":
        # A shard belongs to the pool once the manifest of its batch lists it.
        manifests = [batch / "manifest.json" for batch in workspace.batches()]
        return [str(m.parent / s["path"]) for m in manifests for s in read_json(m)["shards"]]
    if name == "captions":
        return [str(p) for p in sorted(workspace.path("captions").glob("*/*/[!.]*.parquet"))]
    if name == "map_points":
        return pool_map.files(workspace)
    if name == "generated":
        return [str(p) for folder in workspace.remedies() if (p := folder / "generated.parquet").exists()]
    if name == "all_decisions":
        return [str(p) for r in workspace.snapshots() if (p := workspace.snapshot(r.stem, "decisions")).exists()]
    current = latest_snapshot(workspace)
    if name == "shard_rows":
        if current is None or not (manifest := workspace.shard_manifest(current)).exists():
            return []
        return [str(manifest.parent / f.path) for f in Manifest.read(manifest).files]
    known: list[str] = []
    if name == "quarantine":  # of batches that no snapshot has judged yet, too
        record = workspace.snapshot(current) if current else None
        judged = set(read_json(record).get("batches", ())) if record and record.exists() else set()
        batches = workspace.batches()
        known = [str(b / "quarantine.parquet") for b in batches if b.name not in judged and (judged or not current)]
    if current is None:
        return known
    path = workspace.snapshot(current, name)
    return [str(path), *known] if path.exists() else known


def _select(workspace: Workspace, name: str, schema: pa.Schema) -> tuple[str, list[str]]:
    """The SELECT of a view, and the files that it reads."""
    if name == "cases":
        return fold.select(workspace, *lens.ledger(workspace, "case_events"))
    if name == "round_costs":
        return _ROUND_COSTS, []
    if name == "tags":
        events, files = lens.ledger(workspace, "tag_events")
        return _TAGS.replace("<events>", events), files
    if name == "calibration":
        return _values(schema, [asdict(t) for t in load_trust(workspace)]), []
    if name == "snapshots":
        events, files = lens.ledger(workspace, name)
        return _SNAPSHOTS.replace("<events>", events), files
    if name in LEDGERS:
        return lens.ledger(workspace, name)
    if name == "scores":
        return scores.select(workspace, schema)
    files = _files(workspace, name)
    if name == "all_decisions":
        return _decisions(files), files
    if name == "shard_rows" and files:  # shards of earlier versions have fewer columns
        return lens.select_present(schema, files, pq.read_schema(readable(files[0])).names), files
    return lens.select(schema, files), files


def _values(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> str:
    """The SELECT of a few rows that were computed."""
    if not rows:
        return lens.select(schema, [])
    cells = ", ".join(f"({', '.join(_literal(row[f.name]) for f in schema)})" for row in rows)
    columns = ", ".join(f'"{f.name}"::{lens.duck(f.type)} AS "{f.name}"' for f in schema)
    names = ", ".join(f'"{f.name}"' for f in schema)
    return f"SELECT {columns} FROM (VALUES {cells}) computed({names})"


def _literal(value: str | float | None) -> str:
    return "NULL" if value is None else quoted(value) if isinstance(value, str) else repr(value)


def _decisions(files: Sequence[str]) -> str:
    """The decisions of all snapshots, each with the id of its own."""
    schema = views.BULK["all_decisions"][1]
    if not files:
        return lens.select(schema, files)
    columns = ", ".join(f'"{f.name}"' for f in schema if f.name != "snapshot")
    source = read_parquet(files, filename="true", union_by_name="true")
    return f"SELECT parse_path(filename)[-2] AS snapshot, {columns} FROM {source}"
