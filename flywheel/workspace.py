"""Where every file of a workspace lives, and how files are written: whole, under a temporary name, then renamed.

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

from flywheel.objects import located, remote, require_bucket

FORMAT = 1  # version of the on-disk layout; raised when an older reader could misread a newer workspace
_MARKER = "workspace.json"


class UsageError(Exception):
    """The user can fix this: one clear sentence, printed without a traceback, exit code 2."""


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


class Workspace:
    """The folder of one pool, its scores, shards, checkpoints and ledgers; `Workspace(root)` opens or creates it.

    root: a folder, or s3://bucket/prefix. Paths on S3 have the methods of `Path`; other libraries open them by
    `flywheel.objects`. Errors: `UsageError` when the path is a file, was written by a newer version, or S3 refuses.
    """

    def __init__(self, root: str | os.PathLike[str], *, create: bool = True) -> None:
        self.root = located(root).expanduser().resolve()
        if remote(self.root):
            require_storage(self.root)
        marker = self.root / _MARKER
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"--workspace {root} is a file: give a folder")
        if not marker.exists():
            if not create:
                raise UsageError(
                    f"no workspace at {root}: create one with `flywheel run --source DIR --workspace {root}`"
                )
            used = self.root.exists() and any(p for p in self.root.iterdir() if not p.name.startswith("."))
            if used and not marker.exists():  # asked again: another process may just have made it
                raise UsageError(f"--workspace {root} is not empty and not a workspace: give a new or an empty folder")
            write_json(marker, {"format": FORMAT})
        self._check_format(marker)

    def _check_format(self, marker: Path) -> None:
        try:
            found = int(read_json(marker)["format"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{marker} is not readable as a workspace marker: restore it or choose another folder"
            ) from error
        if found > FORMAT:
            raise UsageError(
                f"workspace {self.root} has format {found}, this version reads up to {FORMAT}: upgrade image-flywheel"
            )

    def path(self, *parts: str) -> Path:
        """A path below the root; nothing is created."""
        return self.root.joinpath(*parts)

    def sweep(self) -> int:
        """Remove temporary files that killed writers left behind; returns how many. Only the run's owner calls this."""
        stale = [p for p in self.root.rglob(".*.tmp") if p.is_file()] if not remote(self.root) else []
        for p in stale:
            p.unlink(missing_ok=True)
        return len(stale)


def require_storage(root: Path) -> None:
    """Errors: `UsageError` that says why S3 does not serve `root`."""
    try:
        require_bucket(root)
    except FileNotFoundError as error:
        raise UsageError(f"there is no bucket {root.drive}: create it, or correct --workspace {root}") from error
    except PermissionError as error:
        raise UsageError(
            f"S3 refuses access to bucket {root.drive}: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and its policy"
        ) from error
    except OSError as error:
        raise UsageError(
            f"S3 does not serve {root} ({error}): check AWS_ENDPOINT_URL, AWS_REGION and the credentials in AWS's"
            " environment variables or profile"
        ) from error
