"""Files of a snapshot, in a folder or on S3 (`s3://bucket/…`): whole reads, sizes, Parquet and Arrow by row group.

S3 is read by Arrow with range requests; credentials, region and endpoint come from AWS's usual environment variables.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel.core.files import file_digest
from flywheel.core.storage import arrow

Place = Path | str
"""A local path, or an address that starts with s3://."""


def place(where: Place) -> Place:
    """A `Path`, unless it is an S3 address (one that went through `Path` is mended)."""
    text = str(where)
    if text.startswith("s3:/"):
        return "s3://" + text.removeprefix("s3:").lstrip("/")
    return Path(where)


def remote(where: Place) -> bool:
    """Is it on S3?"""
    return isinstance(where, str)


def inside(folder: Place, name: str) -> Place:
    """The file `name` in a folder."""
    return f"{folder.rstrip('/')}/{name}" if isinstance(folder, str) else folder / name


def beside(where: Place, name: str) -> Place:
    """The file `name`, relative to the folder of `where`."""
    return inside(where.rsplit("/", 1)[0] if isinstance(where, str) else where.parent, name)


def read(where: Place) -> bytes:
    """All bytes. Errors: `OSError`, `FileNotFoundError`."""
    if isinstance(where, Path):
        return where.read_bytes()
    with arrow().open_input_file(_key(where)) as file:
        return file.read()


def sha256(where: Place) -> str:
    """SHA-256 of the bytes, in hex."""
    return file_digest(where) if isinstance(where, Path) else hashlib.sha256(read(where)).hexdigest()


def sizes(places: Sequence[Place]) -> list[int | None]:
    """Bytes of each file, None where there is none; one request for many files on S3 runs them side by side."""
    away = [_key(p) for p in places if isinstance(p, str)]
    found = iter(arrow().get_file_info(away) if away else ())
    return [_local_size(p) if isinstance(p, Path) else _remote_size(next(found)) for p in places]


def parquet(where: Place) -> pq.ParquetFile:
    """Open for reads by row group: mapped into memory, or by one coalesced range request a row group on S3."""
    if isinstance(where, Path):
        return pq.ParquetFile(where, memory_map=True)
    return pq.ParquetFile(arrow().open_input_file(_key(where)), pre_buffer=True)


def record_batches(where: Place) -> pa.RecordBatchFileReader:
    """Open an Arrow file for reads by record batch: mapped into memory without a copy, or by range requests on S3."""
    return pa.ipc.open_file(
        pa.memory_map(str(where)) if isinstance(where, Path) else arrow().open_input_file(_key(where))
    )


def _local_size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def _remote_size(info: Any) -> int | None:
    return info.size if info.is_file else None


def _key(address: str) -> str:
    return address.removeprefix("s3://")


READ_ERRORS = (OSError, pa.ArrowException, KeyError)
"""What a missing, torn or foreign Parquet or Arrow file raises."""
