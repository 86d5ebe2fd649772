"""Opens shards and cached latents for reads by row group: mapped into memory, or by range requests on S3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel.core.storage import arrow, readable, remote

READ_ERRORS = (OSError, pa.ArrowException, KeyError)
"""What a missing, torn or foreign Parquet or Arrow file raises."""


def read(path: Path) -> bytes:
    """All bytes of a small file. Errors: `OSError`, also where S3 credentials are missing."""
    if not remote(path):
        return path.read_bytes()
    with readable(path) as file:
        return file.read()


def parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file; on S3, one coalesced range request reads a row group."""
    return pq.ParquetFile(readable(path), memory_map=not remote(path), pre_buffer=remote(path))


def record_batches(path: Path) -> pa.RecordBatchFileReader:
    """Open an Arrow file; a local one is mapped into memory without a copy."""
    return pa.ipc.open_file(readable(path) if remote(path) else pa.memory_map(str(path)))


def sizes(paths: Sequence[Path]) -> list[int | None]:
    """Bytes of each file, None where there is none; on S3, one request for many files runs them side by side."""
    keys = [str(p).removeprefix("s3://") for p in paths if remote(p)]
    infos = iter(arrow().get_file_info(keys) if keys else ())
    return [_size(next(infos)) if remote(p) else _local_size(p) for p in paths]


def _local_size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _size(info: pa.fs.FileInfo) -> int | None:
    return info.size if info.is_file else None
