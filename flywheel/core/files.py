"""How files are written and named: whole, under a temporary name, then renamed; digests name what inputs make.

On S3 a file is written locally and then put: an object, too, is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.storage import located, remote


def digest(*parts: object) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of `parts`: the key of everything named by its inputs."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def given_file(address: Path, wanted: str) -> Path:
    """The file that a user named, on S3 too. Errors: `UsageError`: there is none, give `wanted`."""
    path = located(address)
    if not path.is_file():
        raise UsageError(f"{path} is no file: give {wanted}")
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary local path that becomes `path` when the block ends without error.

    Readers see all of it or none.
    """
    if remote(path):
        with tempfile.TemporaryDirectory(prefix="flywheel-") as folder:
            yield (tmp := Path(folder, path.name))
            path.fs.put_file(str(tmp), str(path))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield tmp
        with open(tmp, "rb") as f:  # the bytes reach the disk before the name does
            os.fsync(f.fileno())
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with replacing(path) as tmp:
        tmp.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as stable, readable JSON to `path` atomically."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON value in `path`."""
    return json.loads(path.read_bytes())


def write_parquet(path: Path, table: Any, *, row_group_size: int = 65_536, encoded: Sequence[str] = ()) -> None:
    """Write a `pyarrow.Table` to `path` atomically, with page checksums; equal tables give equal bytes.

    encoded: columns that are compressed already (pictures), stored as they are: to read them costs half as much.
    """
    import pyarrow.parquet as pq

    options: dict[str, Any] = {"compression": "zstd"}
    if encoded:
        rest = [name for name in table.column_names if name not in encoded]
        options = {"compression": dict.fromkeys(rest, "zstd"), "use_dictionary": rest, "write_statistics": rest}
    with replacing(path) as tmp:
        pq.write_table(table, tmp, row_group_size=row_group_size, write_page_checksum=True, **options)
