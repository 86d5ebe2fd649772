"""Atomic writes, removals and digests: a file is written under a temporary name, then renamed.

Every file of a workspace is written and removed by these functions, which record it (`flywheel.core.hashes`).

For S3 a file is written locally, then uploaded: readers see the whole object or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from flywheel.core import hashes
from flywheel.core.errors import UsageError
from flywheel.core.storage import located, remote


def digest(*parts: object) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of `parts`; names whatever is named by its inputs."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def given_file(address: Path, wanted: str) -> Path:
    """The local or S3 path of a file that the user named. Errors: `UsageError` that asks for `wanted`, if missing."""
    path = located(address)
    if not path.is_file():
        raise UsageError(f"{path} is not a file: pass {wanted}")
    return path


@contextmanager
def replacing(path: Path, *, recorded: bool = True) -> Iterator[Path]:
    """Yield a temporary local path; the file becomes `path` if the block ends without error.

    Readers see the whole file or none. In a workspace, its hash is recorded.

    recorded: False for a file that is known to change (`hashes.LIVING`).
    """
    if remote(path):
        with tempfile.TemporaryDirectory(prefix="flywheel-") as folder:
            yield (tmp := Path(folder, path.name))
            hashes.upload(tmp, path, recorded=recorded)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield tmp
        entry = hashes.tag(path, tmp) if recorded else None
        with open(tmp, "rb") as f:  # the bytes reach the disk before the name
            os.fsync(f.fileno())
        if entry:
            hashes.write(path.parent, [entry])
        try:
            os.replace(tmp, path)
        except OSError:
            hashes.undo(path, entry)
            raise
    finally:
        tmp.unlink(missing_ok=True)


def is_whole(folder: Path) -> bool:
    """Whether a folder of weights has the file that is written last, on S3 too: without it, an upload was cut off."""
    return any((folder / name).is_file() for name in ("config.json", "model_index.json", "generator.json"))


def rename_folder(unfinished: Path, final: Path) -> None:
    """Give a finished folder its name, in place of one that is not whole; the records of its files move with it.

    Files that another library wrote there are recorded now.
    """
    if final.is_dir() and not is_whole(final):
        shutil.rmtree(final)
    hashes.seal(unfinished)
    hashes.entered(final)
    os.replace(unfinished, final)


def rename(path: Path, final: Path) -> None:
    """Move a file that was written under another name."""
    hashes.record(final, path)
    hashes.note(path, hashes.REMOVED)
    os.replace(path, final)


def discard(path: Path) -> None:
    """Remove a file, if it exists."""
    if path.exists():
        hashes.note(path, hashes.REMOVED)
        with suppress(FileNotFoundError):
            path.fs.rm_file(str(path)) if remote(path) else path.unlink()


def discard_folder(folder: Path) -> None:
    """Remove a folder and everything in it; does nothing if it does not exist."""
    if remote(folder):
        with suppress(FileNotFoundError):
            folder.fs.rm(str(folder), recursive=True)
            hashes.removed_folder(folder)
    elif folder.is_dir():
        hashes.removed_folder(folder)
        doomed = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
        os.replace(folder, doomed)  # a half-removed folder must not look like a whole one
        shutil.rmtree(doomed, ignore_errors=True)


def write_bytes(path: Path, data: bytes, *, recorded: bool = True) -> None:
    """Write `data` to `path` atomically."""
    with replacing(path, recorded=recorded) as tmp:
        tmp.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as stable, readable JSON to `path` atomically."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON value in `path`. Errors: `ValueError` that names the file."""
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is not JSON ({error})") from error


def json_lines(path: Path) -> list[Any]:
    """The values of a JSON Lines file. Errors: `ValueError` that names the file."""
    try:
        return [json.loads(line) for line in text_lines(path) if line.strip()]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' is not JSON ({error})") from error


def text_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, as JSON Lines has them: they end at "\\n" and at no other separator."""
    text = path.read_bytes().decode("utf-8-sig").removesuffix("\n")
    return text.split("\n") if text else []


def write_parquet(path: Path, table: Any, *, row_group_size: int = 65_536, encoded: Sequence[str] = ()) -> None:
    """Write a `pyarrow.Table` to `path` atomically, with page checksums; equal tables give equal bytes.

    encoded: columns of compressed data (pictures); they are stored as they are, which halves the cost of reading them.
    """
    import pyarrow.parquet as pq

    options: dict[str, Any] = {"compression": "zstd"}
    if encoded:
        rest = [name for name in table.column_names if name not in encoded]
        options = {"compression": dict.fromkeys(rest, "zstd"), "use_dictionary": rest, "write_statistics": rest}
    with replacing(path) as tmp:
        pq.write_table(table, tmp, row_group_size=row_group_size, write_page_checksum=True, **options)


class ParquetStream:
    """Write tables of any sizes to a local file in full row groups, with page checksums. A context manager.

    Equal rows give equal bytes, however they come in tables. Memory: one row group and a table. Not atomic: for scratch
    files. schema: of the tables. compression: zstd for files that stay, lz4 for those that are read once.
    """

    def __init__(
        self, path: Path, schema: Any, *, row_group_size: int = 65_536, compression: Literal["zstd", "lz4"] = "zstd"
    ) -> None:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(path, schema, compression=compression, write_page_checksum=True)
        self._size, self._waiting, self.rows = row_group_size, schema.empty_table(), 0

    def __enter__(self) -> ParquetStream:
        return self

    def __exit__(self, *error: object) -> None:
        if self._waiting.num_rows or not self.rows:
            self._write(self._waiting)
        self._writer.close()

    def write(self, table: Any) -> None:
        """Append the rows of a `pyarrow.Table`."""
        import pyarrow as pa

        self.rows += table.num_rows
        waiting = pa.concat_tables([self._waiting, table])
        full = waiting.num_rows // self._size * self._size
        for start in range(0, full, self._size):
            self._write(waiting.slice(start, self._size))
        self._waiting = waiting.take(pa.array(range(full, waiting.num_rows), pa.int64()))  # a copy: lets go of the rest

    def _write(self, table: Any) -> None:
        self._writer.write_table(table.combine_chunks(), row_group_size=self._size)
