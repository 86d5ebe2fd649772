"""Look for erased pictures in Parquet files by the content of their cells, whatever the columns are called."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel.core.storage import readable

_IDS = ("sample_id", "image_id", "reference_ids")


def banned_cells(path: Path, ids: frozenset[str], blobs: frozenset[str]) -> list[str]:
    """What of erased pictures a Parquet file holds, a row group in memory at a time."""
    found: dict[str, int] = {}
    try:
        with pq.ParquetFile(readable(path)) as file:
            schema = file.schema_arrow
            columns = [f.name for f in schema if f.name in _IDS or _has_bytes(f.type)]
            for group in range(file.num_row_groups) if columns else ():
                table = file.read_row_group(group, columns=columns)
                for name in columns:
                    values, kind = table[name].combine_chunks(), schema.field(name).type
                    while pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
                        values = values.flatten()
                    if pa.types.is_struct(values.type):
                        values = values.field("bytes")
                    if name in _IDS and not _has_bytes(kind):
                        hits = sum(str(v).partition("/")[0] in ids for v in values.to_pylist() if v)
                    else:
                        hits = sum(hashlib.sha256(v.as_buffer()).hexdigest() in blobs for v in values if v.is_valid)
                    if hits:
                        found[name] = found.get(name, 0) + hits
    except (OSError, pa.ArrowException):
        return []  # another check reports it
    return [f"holds {count} erased pictures in its column {name}" for name, count in found.items()]


def _has_bytes(kind: pa.DataType) -> bool:
    """Whether cells of this type may hold pictures."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _has_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
