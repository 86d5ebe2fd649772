"""Ledgers and Parquet files as DuckDB views: a lens on the files, never their owner."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from flywheel.core.files import read_json
from flywheel.core.ledger import Ledger
from flywheel.core.schema import LEDGERS
from flywheel.core.storage import read_parquet, register
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb


def connect(workspace: Workspace, ledgers: Iterable[str] = ()) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB connection with a view per ledger; the view of a ledger without files is empty.

    Extensions are never downloaded. Open a new connection per question, so that no view is stale.
    """
    import duckdb

    con = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    con.execute("SET TimeZone = 'UTC'; SET python_enable_replacements = false")
    register(con, workspace.root)
    for name in ledgers:
        con.execute(f"CREATE VIEW {name} AS {ledger(workspace, name)[0]}")
    return con


def ledger(workspace: Workspace, name: str) -> tuple[str, list[str]]:
    """The SELECT of a ledger's rows, and the files that it reads."""
    files = Ledger(workspace, name).copies()
    return select(LEDGERS[name], files), files


def select(schema: pa.Schema, files: Sequence[str]) -> str:
    """The SELECT of a schema's columns from Parquet files; without files it returns no rows."""
    if files:
        columns = ", ".join(f'"{field.name}"' for field in schema)
        return f"SELECT {columns} FROM {read_parquet(files, union_by_name='true')}"
    typed = ", ".join(f'NULL::{duck(field.type)} AS "{field.name}"' for field in schema)
    return f"SELECT {typed} WHERE false"


def select_present(schema: pa.Schema, files: Sequence[str], there: Collection[str]) -> str:
    """The SELECT of a schema's columns that the files have (`there`), with null for the others."""
    null = {f.name: f"NULL::{duck(f.type)} AS" for f in schema if f.name not in there}
    columns = ", ".join(f'{null.get(f.name, "")} "{f.name}"' for f in schema)
    return f"SELECT {columns} FROM {read_parquet(files, union_by_name='true')}"


def duck(kind: pa.DataType) -> str:
    """The DuckDB name of an Arrow type."""
    if pa.types.is_list(kind):
        return f"{duck(kind.value_type)}[]"
    names = {"string": "VARCHAR", "large_string": "VARCHAR", "int32": "INTEGER", "int64": "BIGINT", "bool": "BOOLEAN"}
    names |= {"uint64": "UBIGINT"}
    return names.get(str(kind), "DOUBLE" if str(kind) == "double" else "TIMESTAMPTZ")


def latest_snapshot(workspace: Workspace) -> str | None:
    """Id of the latest committed data snapshot, or None before the first curation."""
    rows = Ledger(workspace, "snapshots").rows()
    return rows[-1]["snapshot"] if rows else None


def shard_manifest(workspace: Workspace, snapshot: str) -> Path:
    """The manifest of a data snapshot's shards."""
    return workspace.path(read_json(workspace.snapshot(snapshot))["manifest"])
