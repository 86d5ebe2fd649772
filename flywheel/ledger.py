"""Append-only Delta tables: idempotent appends, compare-and-swap. The only file that imports deltalake."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from flywheel.mirror import kept
from flywheel.objects import delta_options, located
from flywheel.schema import LEDGERS
from flywheel.workspace import Workspace, digest, write_bytes

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from deltalake.transaction import AddAction

# Ledgers are the audit trail: the log is kept for ten years.
_CONFIG = {"delta.logRetentionDuration": "interval 3650 days", "delta.checkpointInterval": "20"}


class Ledger:
    """One append-only table of a workspace.

    Appending twice under one `key` records it once, whoever wins the race: that is both resume after a kill and
    compare-and-swap.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.name = name
        self.schema = LEDGERS[name]
        self.path: Path = workspace.path("ledger", name)

    def append(self, rows: Iterable[Mapping[str, Any]] | pa.Table, *, key: str) -> bool:
        """Append rows, or a table of the ledger's columns, atomically under `key`; False when the key was there.

        A missing `at` becomes now (UTC).
        """
        from deltalake import CommitProperties, Transaction
        from deltalake.exceptions import CommitFailedError

        table = self._made()
        if table.transaction_version(key) is not None:
            return False
        part = self._write(_table(rows, self.schema), key)
        mine = secrets.randbits(62)
        properties = CommitProperties(app_transactions=[Transaction(key, mine)], max_commit_retries=1000)
        try:
            table.create_write_transaction([part], "append", table.schema(), commit_properties=properties)
        except CommitFailedError:
            winner = self._delta().transaction_version(key)
            if winner == mine:
                return True  # this commit is there, its answer was lost on the way, and the repeated request refused
            self.path.joinpath(part.path).unlink(missing_ok=True)
            if winner is not None:
                return False  # another writer won this key
            raise
        return True

    def compact(self) -> int:
        """Put all rows into one file; returns how many files there were. Readers and writers need not stop.

        The old files stay for readers that have just listed them, until `vacuum`.
        """
        from deltalake import CommitProperties, Transaction
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import RemoveAction

        if not self.exists():
            return 0
        table = self._delta()
        files = sorted(table.file_uris())
        if len(files) < 2:
            return len(files)
        part = self._write(self._read(files), f"compact/{table.version()}", data_change=False)
        sizes = {Path(f).name: located(f).stat().st_size for f in files}
        removed = [RemoveAction(name, False, part.modification_time, size) for name, size in sizes.items()]
        # One compaction at a time: a second one of the same files would double their rows.
        turn = Transaction("compact", (table.transaction_version("compact") or 0) + 1)
        properties = CommitProperties(app_transactions=[turn], max_commit_retries=1000)
        try:
            table.create_write_transaction([*removed, part], "append", table.schema(), commit_properties=properties)
        except CommitFailedError:
            now = self._delta()
            if any(f.endswith(part.path) for f in now.file_uris()):
                return len(files)  # its answer was lost on the way
            self.path.joinpath(part.path).unlink(missing_ok=True)
            if now.transaction_version("compact") != turn.version:
                raise
        return len(files)

    def vacuum(self, *, hours: int = 168) -> int:
        """Remove files that no version of the last `hours` needs; returns how many."""
        if not self.exists():
            return 0
        return len(self._delta().vacuum(retention_hours=hours, dry_run=False, enforce_retention_duration=False))

    def _write(self, data: pa.Table, key: str, *, data_change: bool = True) -> AddAction:
        """Write the rows of one key; the file's name ends in its SHA-256, so that anyone can verify it."""
        import pyarrow.parquet as pq
        from deltalake.transaction import AddAction

        buffer = pa.BufferOutputStream()
        pq.write_table(data, buffer, compression="zstd", row_group_size=131_072)
        content = buffer.getvalue()
        name = f"{digest(self.name, key)[:16]}-{uuid.uuid4().hex[:8]}-{hashlib.sha256(content).hexdigest()}.parquet"
        write_bytes(self.path / name, content)
        stats = json.dumps({"numRecords": data.num_rows})
        return AddAction(name, len(content), {}, time.time_ns() // 1_000_000, data_change, stats)

    def has(self, key: str) -> bool:
        """Was something appended under `key`?"""
        return self.exists() and self._delta().transaction_version(key) is not None

    def exists(self) -> bool:
        """Has anything ever been appended?"""
        return (self.path / "_delta_log").is_dir()

    def files(self) -> list[str]:
        """Absolute paths of the Parquet files of the latest version, in a stable order."""
        return sorted(self._delta().file_uris()) if self.exists() else []

    def copies(self) -> list[str]:
        """The same files where they are quick to read: on this machine."""
        return kept(self.files())

    def table(self) -> pa.Table:
        """Every row, oldest first."""
        return self._read(self.files())

    def _made(self) -> DeltaTable:
        """The table, made by whoever comes first."""
        from deltalake import DeltaTable
        from deltalake.exceptions import CommitFailedError

        options = delta_options(self.path)
        with suppress(CommitFailedError):  # another writer made it at the same moment
            DeltaTable.create(
                str(self.path), self.schema, mode="ignore", configuration=_CONFIG, storage_options=options
            )
        return self._delta()

    def _delta(self) -> DeltaTable:
        from deltalake import DeltaTable

        return DeltaTable(str(self.path), storage_options=delta_options(self.path))

    def _read(self, files: Sequence[str]) -> pa.Table:
        import pyarrow.parquet as pq

        tables = [pq.read_table(f, schema=self.schema) for f in kept(files)]
        return pa.concat_tables([self.schema.empty_table(), *tables]).sort_by("at")

    def rows(self) -> list[dict[str, Any]]:
        """Every row as a dictionary, oldest first."""
        return self.table().to_pylist()


def _table(rows: Iterable[Mapping[str, Any]] | pa.Table, schema: pa.Schema) -> pa.Table:
    now = datetime.now(UTC)
    if not isinstance(rows, pa.Table):
        return pa.Table.from_pylist([{"at": now, **row} for row in rows], schema=schema)
    if "at" not in rows.column_names:
        rows = rows.append_column("at", pa.repeat(pa.scalar(now, pa.timestamp("us", "UTC")), rows.num_rows))
    return rows.select(schema.names).cast(schema)
