"""Append-only Delta tables: idempotent appends, compare-and-swap. The only file that imports deltalake."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from flywheel.core import commit_log, hashes
from flywheel.core.commit_log import LOG
from flywheel.core.errors import UsageError, first_line
from flywheel.core.files import digest, discard, write_bytes
from flywheel.core.lock import locked
from flywheel.core.mirror import kept, mirror
from flywheel.core.schema import LEDGERS
from flywheel.core.storage import delta_address, delta_options, has_whole_commits, read_table, remote
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from deltalake.transaction import AddAction

_TIME, _EPOCH = pa.timestamp("us", tz="UTC"), datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(milliseconds=1)  # the precision that Delta keeps of the newest time in a file
_TOLD_WITH = {"rounds": ("promotions",), "promotions": ("rounds",)}  # ledgers whose rows are sorted together by `at`
_SUMMARY_EVERY = 20  # versions
_WHOLE_BYTES = 32 * 2**20  # files of this size are not compacted
_OLDEST_FIRST = [("modification_time", "ascending"), ("path", "ascending")]
# Ledgers are the audit trail: their log is kept for ten years.
_CONFIG = {"delta.logRetentionDuration": "interval 3650 days", "delta.checkpointInterval": str(_SUMMARY_EVERY)}


class Ledger:
    """One append-only table of a workspace.

    Of several appends under one `key`, only the first is recorded. That serves both resume after a kill and
    compare-and-swap between writers.
    """

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.name = name
        self.schema = LEDGERS[name]
        self.path: Path = workspace.path("ledger", name)
        self._workspace = workspace

    def append(self, rows: Iterable[Mapping[str, Any]] | pa.Table, *, key: str) -> bool:
        """Append rows, or a table of the ledger's columns, atomically under `key`; False if the key exists already.

        If `at` is missing it is the current time (UTC), or, where the clock was set back, just after the newest `at` of
        this ledger and of `_TOLD_WITH`: who sorts by it reads what was appended later as later. Errors: `UsageError` if
        another run took over the workspace.
        """
        with self._alone():
            return self._append(rows, key)

    def _append(self, rows: Iterable[Mapping[str, Any]] | pa.Table, key: str) -> bool:
        from deltalake import CommitProperties, Transaction
        from deltalake.exceptions import CommitFailedError

        table = self._created()
        if table.transaction_version(key) is not None:
            return False
        part = self._write(_table(rows, self.schema, self._now(table)), key)
        if self._workspace.fence:
            self._workspace.fence()
        mine = secrets.randbits(62)
        turn = Transaction(key, mine)
        properties = CommitProperties(self._stated(table, [part, turn]), 1000, [turn])
        try:
            table.create_write_transaction([part], "append", table.schema(), commit_properties=properties)
        except CommitFailedError:
            winner = self._delta().transaction_version(key)
            if winner == mine:  # committed: the answer was lost, and the repeated request refused
                self._record_commits(table.version() + 1)
                return True
            discard(self.path / part.path)
            if winner is not None:
                return False  # another writer won this key
            raise
        self._record_commits(table.version() + 1)
        return True

    def compact(self) -> int:
        """Merge small files into files of up to 32 MiB; returns how many were merged. Readers and writers may go on.

        The old files stay until `vacuum`, for readers that have just listed them.
        """
        with self._alone():
            return self._compact()

    def _compact(self) -> int:
        from deltalake import CommitProperties, Transaction
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import RemoveAction

        if not self.exists():
            return 0
        table = self._written()
        groups = _groups(table)
        if not groups:
            return 0
        parts, removed = [], []
        for number, group in enumerate(groups):
            rows = self._read([str(self.path / name) for name in group])
            part = self._write(rows, f"compact/{table.version()}/{number}", data_change=False)
            removed += [RemoveAction(name, False, part.modification_time, size) for name, size in group.items()]
            parts.append(part)
        # One compaction at a time: two of the same files would double their rows.
        turn = Transaction("compact", (table.transaction_version("compact") or 0) + 1)
        properties = CommitProperties(self._stated(table, [*removed, *parts, turn]), 1000, [turn])
        try:
            table.create_write_transaction([*removed, *parts], "append", table.schema(), commit_properties=properties)
        except CommitFailedError:
            now = self._delta()
            if any(f.endswith(parts[0].path) for f in now.file_uris()):
                return len(removed)  # committed: the answer was lost
            for part in parts:
                discard(self.path / part.path)
            if now.transaction_version("compact") != turn.version:
                raise
        self._record_commits(table.version() + 1)
        return len(removed)

    def redact(self, change: Callable[[pa.Table], pa.Table]) -> int:
        """Replace the rows of files by what `change` makes of them, and delete the old files; returns how many.

        For texts that must be erased: the events stay. Call it only while nothing else writes the ledger.
        """
        from deltalake import CommitProperties
        from deltalake.transaction import RemoveAction

        if not self.exists():
            return 0
        table = self._written()
        parts: list[AddAction] = []
        removed: list[RemoveAction] = []
        sizes = pa.table(table.get_add_actions(flatten=True)).select(["path", "size_bytes"]).to_pylist()
        for number, file in enumerate(sizes):
            rows = self._read([str(self.path / file["path"])])
            changed = change(rows)
            if changed.equals(rows):
                continue
            part = self._write(changed, f"redact/{table.version()}/{number}", data_change=False)
            removed.append(RemoveAction(file["path"], False, part.modification_time, file["size_bytes"]))
            parts.append(part)
        if parts:
            actions: list[AddAction | RemoveAction] = [*removed, *parts]
            properties = CommitProperties(self._stated(table, actions), max_commit_retries=0)
            table.create_write_transaction(actions, "append", table.schema(), commit_properties=properties)
            self._record_commits(table.version() + 1)
            for old in removed:
                mirror(self.path / old.path).unlink(missing_ok=True)
        self.vacuum(hours=0)
        return len(parts)

    def vacuum(self, *, hours: int = 168) -> int:
        """Delete files that no version of the last `hours` needs; returns how many."""
        if not self.exists():
            return 0
        table = self._written()
        replaced = table.vacuum(retention_hours=hours, dry_run=True, enforce_retention_duration=False)
        hashes.write(self.path, [hashes.Entry(name, hashes.REMOVED) for name in replaced])
        version = table.version()
        removed = table.vacuum(retention_hours=hours, dry_run=False, enforce_retention_duration=False)
        self._record_commits(version + 1)
        return len(removed)

    def _now(self, table: DeltaTable) -> datetime:
        """The current time (UTC), or just after the newest `at` that files state, whichever is later."""
        others = [Ledger(self._workspace, name) for name in _TOLD_WITH.get(self.name, ())]
        now = datetime.now(UTC)
        for delta in (table, *(o._delta() for o in others if o.exists())):
            listed = pa.table(delta.get_add_actions(flatten=True))
            newest = pc.max(listed["max.at"]).as_py() if "max.at" in listed.column_names else None
            now = max(now, newest + _TICK) if newest else now
        return now

    def _write(self, data: pa.Table, key: str, *, data_change: bool = True) -> AddAction:
        """Write the rows of one key to a file whose name ends in its SHA-256, so that anyone can verify it."""
        import pyarrow.parquet as pq
        from deltalake.transaction import AddAction

        buffer = pa.BufferOutputStream()
        pq.write_table(data, buffer, compression="zstd", row_group_size=131_072)
        content = buffer.getvalue()
        name = f"{digest(self.name, key)[:16]}-{uuid.uuid4().hex[:8]}-{hashlib.sha256(content).hexdigest()}.parquet"
        write_bytes(self.path / name, content)
        commit_log.sync(self.path, f"{hashes.FOLDER}/{hashes.LOG}")  # no power cut leaves rows newer than all records
        newest = pc.max(data["at"]).as_py()
        dated = {"maxValues": {"at": newest.isoformat(timespec="microseconds")}} if newest else {}
        stats = json.dumps({"numRecords": data.num_rows, **dated})
        return AddAction(name, len(content), {}, time.time_ns() // 1_000_000, data_change, stats)

    def has(self, key: str) -> bool:
        """True if something was appended under `key`."""
        return self.exists() and self._delta().transaction_version(key) is not None

    def exists(self) -> bool:
        """True if anything was ever appended; a first append that was interrupted does not count."""
        return bool(self._commit(0))

    def files(self) -> list[str]:
        """Absolute paths of the Parquet files of the latest version, in a stable order."""
        # Names alone: the addresses that Delta gives are URL-encoded, and a folder may be called anything.
        names = (uri.rpartition("/")[2] for uri in self._delta().file_uris()) if self.exists() else ()
        return sorted(str(self.path / name) for name in names)

    def copies(self) -> list[str]:
        """Local copies of the same files, which are faster to read."""
        return kept(self.files())

    def table(self) -> pa.Table:
        """Every row, oldest first."""
        return self._read(self.files())

    def _alone(self) -> AbstractContextManager[None]:
        """Hold off other writers where a commit appears before it is whole; elsewhere they may work at once."""
        if has_whole_commits(self.path):
            return nullcontext()
        return locked(self._workspace.path(f".{self.name}.lock"))

    def _created(self) -> DeltaTable:
        """The table; the first writer creates it, alone: two creations would be two commits without a chain."""
        if not self.exists():
            with locked(self._workspace.path(f".{self.name}.created.lock")):
                if not self.exists():
                    self._create()
        return self._written()

    def _written(self) -> DeltaTable:
        """The table, to be written: a torn commit is set aside, as its number is needed."""
        if self.torn() is not None:
            with locked(self._workspace.path(f".{self.name}.created.lock")):
                if (version := self.torn()) is not None:
                    self._set_aside(version)
        return self._delta()

    def _set_aside(self, version: int) -> None:
        torn = self.path / commit_log.name(version)
        kept = self.path / f"torn-{version:020d}-{uuid.uuid4().hex[:8]}.json"
        hashes.record(kept, torn)
        hashes.write(self.path, [hashes.Entry(commit_log.name(version), hashes.REMOVED)])
        os.replace(torn, kept)
        print(
            f"the newest entry of the ledger {self.name} was cut off while it was written, and does not count (it is"
            f" kept as {kept}): run the command that was at work then again",
            file=sys.stderr,
        )

    def torn(self) -> int | None:
        """Version of the newest commit if it is incomplete, and nobody recorded it: its writer was stopped at it.

        Such an entry was never acknowledged, and is not read. On S3, commits appear whole.
        """
        version = None if remote(self.path) else commit_log.newest(self.path)
        if not version or self._commit(version):
            return None
        record = hashes.read(self.path).newest.get(commit_log.name(version))
        return None if record and record.kind != hashes.REMOVED else version

    def _create(self) -> None:
        from deltalake import DeltaTable
        from deltalake.exceptions import CommitFailedError

        if (torn := self.path / commit_log.name(0)).exists():  # of a first append that was interrupted
            hashes.write(self.path, [hashes.Entry(commit_log.name(0), hashes.REMOVED)])
            torn.unlink(missing_ok=True)
        options = delta_options(self.path)
        with suppress(CommitFailedError):  # the answer was lost, and the repeated request refused
            DeltaTable.create(
                delta_address(self.path), self.schema, mode="ignore", configuration=_CONFIG, storage_options=options
            )
        self._record_commits(0)

    def _commit(self, version: int) -> bytes:
        """Content of a commit; empty if there is none, or only its beginning."""
        try:
            data = (self.path / commit_log.name(version)).read_bytes()
        except FileNotFoundError:
            return b""
        return data if commit_log.whole(data, version) else b""

    def _stated(self, table: DeltaTable, actions: Sequence[object]) -> dict[str, str]:
        """What a commit of these actions states, also about the one before it: neither can change unnoticed."""
        previous = hashlib.sha256(self._commit(table.version())).hexdigest()
        return commit_log.stated(f"{table.version()}:{previous}", actions)

    def _record_commits(self, version: int) -> None:
        """Record the hashes of the commits from a version on, and of Delta's summaries of them.

        What has a record was on the disk before: a commit without one may be cut off by a power cut, others are not.
        """
        entries = []
        while (path := self.path / commit_log.name(version)).exists():
            names = [commit_log.name(version)]
            if (version + 1) % _SUMMARY_EVERY == 0:
                names += [commit_log.name(version, "checkpoint.parquet"), f"{LOG}/_last_checkpoint"]
            commit_log.sync(self.path, *names)
            entries += [
                hashes.Entry(name, hashes.FILE, *hashes.content(path))
                for name in names
                if (path := self.path / name).exists()
            ]
            version += 1
        if entries:
            hashes.write(self.path, entries)

    def _delta(self) -> DeltaTable:
        """The table at its newest commit that is whole. Errors: `UsageError` for a commit that was damaged later."""
        from deltalake.exceptions import DeltaError

        try:
            table = self._opened()
            if remote(self.path) or self._commit(table.version()):
                return table
            damage = f"commit {table.version()} is incomplete"
        except DeltaError as error:
            if remote(self.path) or os.strerror(errno.EACCES) in str(error):  # nothing is wrong with the files
                raise
            damage = first_line(error)
        if (torn := self.torn()) is None:
            raise self._unreadable(damage)
        return self._opened(torn - 1)

    def _opened(self, version: int | None = None) -> DeltaTable:
        from deltalake import DeltaTable

        return DeltaTable(delta_address(self.path), version=version, storage_options=delta_options(self.path))

    def _read(self, files: Sequence[str]) -> pa.Table:
        try:
            tables = [_conformed(read_table(f), self.schema) for f in kept(files)]
        except (pa.ArrowInvalid, FileNotFoundError) as error:
            raise self._unreadable(first_line(error)) from error
        # `empty_table` and `sort_by` would import pandas, a third of a second.
        whole = pa.concat_tables([pa.Table.from_batches([], self.schema), *tables])
        return whole.take(pc.sort_indices(whole, [("at", "ascending")]))

    def _unreadable(self, why: str) -> UsageError:
        return UsageError(
            f"the ledger {self.name} cannot be read ({why}): `flywheel fsck` names the file; restore "
            f"{self.path} from a copy"
        )

    def rows(self) -> list[dict[str, Any]]:
        """Every row as a dictionary, oldest first."""
        table = self.table()
        columns = {name: _values(table[name]) for name in table.column_names}
        return [dict(zip(columns, row)) for row in zip(*columns.values())]


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Values of a column. Pyarrow would import pandas for a time with a zone."""
    if column.type != _TIME:
        return column.to_pylist()
    return [None if us is None else _EPOCH + timedelta(microseconds=us) for us in column.cast(pa.int64()).to_pylist()]


def _conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of the schema; what an older file lacks is null."""
    there = set(table.column_names)
    columns = [table[f.name].cast(f.type) if f.name in there else pa.nulls(len(table), f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _groups(table: DeltaTable) -> list[dict[str, int]]:
    """Files to merge, oldest first, as groups of up to `_WHOLE_BYTES`: name → bytes."""
    listed = pa.table(table.get_add_actions(flatten=True))
    groups: list[dict[str, int]] = [{}]
    total = 0
    for row in listed.select(["path", "size_bytes"]).take(pc.sort_indices(listed, _OLDEST_FIRST)).to_pylist():
        total += row["size_bytes"]
        if total > _WHOLE_BYTES:
            groups.append({})
            total = row["size_bytes"]
        groups[-1][row["path"]] = row["size_bytes"]
    return [group for group in groups if len(group) > 1]


def _table(rows: Iterable[Mapping[str, Any]] | pa.Table, schema: pa.Schema, now: datetime) -> pa.Table:
    if not isinstance(rows, pa.Table):
        return pa.Table.from_pylist([{"at": now, **row} for row in rows], schema=schema)
    if "at" not in rows.column_names:
        rows = rows.append_column("at", pa.repeat(pa.scalar(now, pa.timestamp("us", "UTC")), rows.num_rows))
    return rows.select(schema.names).cast(schema)
