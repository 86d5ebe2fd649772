"""Rewrite Parquet files without some of their rows, a row group at a time; a rewritten file says so in its metadata.

The metadata name the erasure, so that a file is rewritten once, however often an interrupted erasure is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flywheel.core.files import replacing
from flywheel.core.storage import readable

_MARK = b"erasures"

Change = Callable[[pa.Table], pa.Table]


def was_rewritten(path: Path, erasure: str) -> bool:
    """Whether this erasure has rewritten the file."""
    return erasure in _marks(pq.read_schema(readable(path)).metadata)


def rewrite(path: Path, erasure: str, change: Change) -> bool:
    """Replace the file by its changed row groups; False if this erasure did so before.

    Column order, compression and the size of the largest row group stay: all but the last are full.
    """
    with pq.ParquetFile(readable(path)) as file:
        schema = file.schema_arrow
        marks = _marks(schema.metadata)
        if erasure in marks:
            return False
        noted = dict(schema.metadata or {}) | {_MARK: " ".join([*marks, erasure]).encode()}
        out = schema.with_metadata(noted)
        size = max([1, *(file.metadata.row_group(n).num_rows for n in range(file.num_row_groups))])
        groups = (change(file.read_row_group(n)) for n in range(file.num_row_groups))
        with replacing(path) as tmp, pq.ParquetWriter(tmp, out, **_options(file.metadata)) as writer:
            for group in _regrouped(groups, size):
                writer.write_table(group.replace_schema_metadata(noted), row_group_size=size)
    return True


def _marks(metadata: Mapping[bytes, bytes] | None) -> list[str]:
    return (metadata or {}).get(_MARK, b"").decode().split()


def _options(metadata: pq.FileMetaData) -> dict[str, Any]:
    """How the columns of a file are stored."""
    options: dict[str, Any] = {"write_page_checksum": True, "compression": "zstd"}
    if not metadata.num_row_groups:
        return options
    first = metadata.row_group(0)
    chunks = [first.column(n) for n in range(first.num_columns)]
    codecs = {c.path_in_schema: c.compression.lower() for c in chunks}
    options["compression"] = {path: "none" if codec == "uncompressed" else codec for path, codec in codecs.items()}
    options["use_dictionary"] = [c.path_in_schema for c in chunks if c.has_dictionary_page]
    return options


def _regrouped(groups: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of `size`; the last may be smaller."""
    waiting: list[pa.Table] = []
    for group in groups:
        waiting.append(group)
        while sum(w.num_rows for w in waiting) >= size:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, size)
            waiting = [joined.slice(size)]
    if waiting and (rest := pa.concat_tables(waiting)).num_rows:
        yield rest


def renumbered(table: pa.Table, removed: Mapping[str, Sequence[int]]) -> pa.Table:
    """The table with the numbers that its rows of the pool have now."""
    rows = table["row"].to_numpy().copy()
    for shard, numbers in removed.items():
        here = pc.equal(table["shard"], shard).to_numpy(zero_copy_only=False)
        rows[here] -= np.searchsorted(np.asarray(numbers), rows[here]).astype(rows.dtype)
    place = table.schema.get_field_index("row")
    return table.set_column(place, table.schema.field("row"), pa.array(rows, table.schema.field("row").type))


def unnamed(table: pa.Table, gone: Sequence[str]) -> pa.Table:
    """The table without addresses of erased survivors; their ids stay, as those of the tombstones do."""
    if "survivor_uri" not in table.column_names:
        return table
    ids = pa.array(list(gone), pa.string())
    erased = pc.fill_null(pc.is_in(table["survivor"].cast(pa.string()), value_set=ids), False)
    field = table.schema.field("survivor_uri")
    uris = pc.if_else(erased, pa.scalar(None, field.type), table["survivor_uri"])
    return table.set_column(table.schema.get_field_index(field.name), field, uris)
