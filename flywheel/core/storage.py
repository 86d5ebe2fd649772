"""Paths on S3-compatible storage (`s3://bucket/…`), and how Arrow, DuckDB and Delta Lake open them.

Endpoint, region and credentials come from the usual environment variables or profile of AWS and are never written to a
file. The libraries repeat requests that fail or hang, with back-off, for about half a minute: see `flywheel.core.s3`.
"""

from __future__ import annotations

import atexit
import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import quote, unquote

from flywheel.core.errors import UsageError, first_line

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    class RemotePath(Path):
        """For the type check: a `UPath`, which has the methods of `Path` but is not a subclass of it."""

        fs: Any
        path: str


_SCHEME = "s3://"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:(/|$)|s3:")  # of something elsewhere; `Path` collapsed its slashes
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "hf": "huggingface_hub"}
_MISREAD = re.compile(r"[\x00-\x1f\x7f\\]|%[0-9A-Fa-f]{2}|/_delta_log/")
_WILD = re.compile(r"[*?\[]")
_ATTEMPTS = 8  # per request: with back-off, the last one comes after about half a minute
_FIRST_ATTEMPTS = 4  # of the first request to a server: it shows within seconds whether the server answers
_DELTA_SECONDS = 30  # after which Delta does not repeat a request


def located(address: str | os.PathLike[str]) -> Path:
    """A `Path`, or a `UPath` (same methods) for an s3:// address; a slash that `Path` collapsed is restored.

    Errors: `UsageError` for an address of another kind, which would be taken for the name of a folder.
    """
    text = from_file_uri(str(address))
    if not text.startswith("s3:/"):
        if _ADDRESS.match(text):
            shown = re.sub(":/(?!/)", "://", text)
            raise UsageError(f"{shown} is neither a path nor s3://bucket/…: pass one of these")
        return Path(text)
    from upath import UPath

    return UPath(_SCHEME + text.removeprefix("s3:").lstrip("/"), **_options())


def from_file_uri(text: str) -> str:
    """The path of a file:// address of this machine; any other text as it is."""
    if not text.startswith("file:/"):
        return text
    path = "/" + text.removeprefix("file:").removeprefix("//localhost").lstrip("/")
    return path if os.path.lexists(path) else unquote(path)


def remote(path: Path | str) -> TypeGuard[RemotePath]:
    """True for a path on object storage, which `located` returns as a `UPath`."""
    return str(path).startswith(_SCHEME)


def file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address (path, s3://, gs://, az://, hf://, http(s)://, …), and the path in it.

    Credentials are those that each file system finds in the environment. Errors: `UsageError` for an unknown scheme,
    one whose package is not installed, or a server that cannot be reached.
    """
    from fsspec.core import url_to_fs

    scheme = address.partition("://")[0] if "://" in address else ""
    before = address.partition("::")[0]  # which chains addresses for fsspec, and is a part of a name here
    try:
        system, _ = url_to_fs(before, **(_options() if scheme == "s3" else {}))
        return system, system._strip_protocol(address)
    except (ImportError, ValueError) as error:
        package = _PACKAGES.get(scheme)
        advice = f"install {package}" if package else "use a path, s3://, gs://, az://, hf:// or https://"
        raise UsageError(f"{address} cannot be opened: {advice} ({error})") from error
    except Exception as error:  # some connect at once, and each raises errors of its own
        told = getattr(error, "strerror", None) or first_line(error)
        raise UsageError(f"{address} cannot be opened: {told}") from error


def failures() -> tuple[type[Exception], ...]:
    """What a storage raises that refuses or does not answer: S3's client has errors that are no `OSError`."""
    client: Any = sys.modules.get("botocore.exceptions")
    return (OSError, client.BotoCoreError) if client else (OSError,)


def interrupted(error: BaseException) -> bool:
    """Whether S3 broke off an answer that Arrow was reading, which Arrow does not ask for again."""
    return "Failed to flush response stream" in str(error)


def readable(path: Path | str) -> Any:
    """What Arrow can read one file from: the path, or the object opened for range requests.

    Errors: `FileNotFoundError`, `OSError`.
    """
    return arrow().open_input_file(str(path).removeprefix(_SCHEME)) if remote(path) else path


def read_table(path: Path | str, columns: list[str] | None = None) -> pa.Table:
    """One Parquet file as a table. Pyarrow's own `read_table` imports pandas first, a third of a second."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(readable(path)) as file:
        return file.read(columns)


def create(path: Path, data: bytes) -> None:
    """Write a small new file. Errors: `FileExistsError`."""
    if remote(path):
        path.fs.pipe_file(str(path), data, mode="create")
    else:
        with path.open("xb") as file:
            file.write(data)


def read_tagged(path: RemotePath) -> tuple[bytes, str]:
    """Content of an object, and the tag of this content for `replace`. Errors: `FileNotFoundError`."""
    tag = path.fs.info(str(path))["ETag"]  # read first: if the content is newer than the tag, `replace` refuses
    return path.fs.cat_file(str(path)), tag


def replace(path: RemotePath, data: bytes, tag: str) -> bool:
    """Replace the content that has this tag (compare-and-swap); False if another writer was first."""
    bucket, _, key = path.path.partition("/")
    try:
        path.fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, IfMatch=tag)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno == errno.EINVAL:  # deleted, or another tag
            return False
        raise
    return True


def arrow() -> Any:
    """Arrow's S3 file system for the environment."""
    from flywheel.core.s3 import away

    return _arrow(endpoint(), _region(), 1 if away() else _ATTEMPTS)


def register(con: duckdb.DuckDBPyConnection, root: Path) -> None:
    """Let a DuckDB connection read files below `root`."""
    if remote(root):
        con.register_filesystem(root.fs)


def quoted(text: str) -> str:
    """The text as a DuckDB string literal."""
    return "'" + text.replace("'", "''") + "'"


def parquet_list(files: Iterable[str]) -> str:
    """The files as a DuckDB list literal."""
    return f"[{', '.join(map(quoted, files))}]"


def read_parquet(files: Iterable[str], **options: str) -> str:
    """DuckDB's table function for exactly these files; options: its named parameters, as SQL.

    A path is text: neither `*`, `?` and `[` nor `name=value` mean anything in it.
    """
    named = {"hive_partitioning": "false"} | options
    return f"read_parquet({parquet_list(map(pattern, files))}, {', '.join(f'{k}={v}' for k, v in named.items())})"


def pattern(file: str) -> str:
    """The glob pattern that matches exactly this path: DuckDB takes every path for one.

    In a pattern a backslash separates folders, so a path that has both gets a link under a plain name.
    """
    if "\\" in file and _WILD.search(file) and not file.startswith(_SCHEME):
        path = Path(file)
        odd = max(n for n, part in enumerate(path.parts) if "\\" in part or _WILD.search(part))
        if odd < len(path.parts) - 1:
            file = str(_alias(Path(*path.parts[: odd + 1])).joinpath(*path.parts[odd + 1 :]))
    return _WILD.sub(r"[\g<0>]", file)


def delta_address(path: Path) -> str:
    """Address of a Delta table: a URL, in which every character of a folder's name is itself."""
    if remote(path):
        return f"{_SCHEME}{quote(str(path).removeprefix(_SCHEME))}"
    path = path.absolute()
    # Delta's local file system decodes names twice, resolves links first, and takes a folder above for its own log;
    # its `fs` scheme follows links.
    return f"fs://{_alias(path.parent)}/{path.name}" if _MISREAD.search(str(path)) else path.as_uri()


def has_whole_commits(path: Path) -> bool:
    """Whether commits of a table at `path` appear whole: the `fs` scheme creates a file, then fills it."""
    return remote(path) or not _MISREAD.search(str(path.absolute()))


@lru_cache
def _alias(folder: Path) -> Path:
    """A link to a folder, under a plain name, for as long as this process lives."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="flywheel-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    (place / "alias").symlink_to(folder)
    return place / "alias"


def delta_options(path: Path) -> dict[str, str]:
    """Storage options of Delta Lake for a table at `path`: those that it does not read from the environment itself."""
    if not remote(path):
        return {}
    from flywheel.core.s3 import away

    server = {"aws_endpoint": endpoint(), "allow_http": "true"} if endpoint() else {}
    region = {"aws_region": name} if (name := _region()) else {}
    # The default, ten attempts that start a tenth of a second apart, gives up after two seconds.
    patience = {"backoff_config.init_backoff": "1 s", "retry_timeout": f"{_DELTA_SECONDS} s"}
    return server | region | {"aws_conditional_put": "etag"} | patience | ({"max_retries": "0"} if away() else {})


def require_bucket(path: Path) -> None:
    """Check that the bucket of a path exists. Errors: `FileNotFoundError`, `PermissionError`, `OSError`."""
    from botocore.exceptions import BotoCoreError

    from flywheel.core.s3 import PatientS3

    try:
        PatientS3(**_options(_FIRST_ATTEMPTS)).call_s3("head_bucket", Bucket=path.drive)
    except BotoCoreError as error:  # no credentials, or the server does not answer
        raise OSError(str(error)) from error


def _options(attempts: int = _ATTEMPTS) -> dict[str, Any]:
    """Options of the file system for S3, which is ours from now on."""
    from fsspec import register_implementation

    from flywheel.core.s3 import CONNECT_SECONDS, READ_SECONDS, PatientS3

    register_implementation("s3", PatientS3, clobber=True)
    return {
        "use_listings_cache": False,
        "client_kwargs": {"region_name": _region(), "endpoint_url": endpoint() or None},
        "config_kwargs": {
            "retries": {"mode": "standard", "total_max_attempts": attempts},
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
        },
    }


def endpoint() -> str:
    """Address of the S3 server; empty for Amazon's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _region() -> str | None:
    """The region in the environment; if None, each library reads the profile."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


@lru_cache(maxsize=4)
def _arrow(endpoint: str, region: str | None, attempts: int) -> Any:
    from pyarrow import fs

    from flywheel.core.s3 import CONNECT_SECONDS, READ_SECONDS

    scheme, _, host = endpoint.rpartition("://")
    server = {"endpoint_override": host, "scheme": scheme or "https"} if host else {}
    return fs.S3FileSystem(
        region=region,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
        connect_timeout=CONNECT_SECONDS,
        request_timeout=READ_SECONDS,
        **server,
    )
