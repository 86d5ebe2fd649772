"""Files of a source: found by path, glob or prefix, on this machine or at any address that fsspec opens."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from curation.sources import MAX_BYTES, BadInput
from curation.sources.asking import asked, reason
from curation.sources.copies import spooled
from curation.sources.workspaces import is_workspace, marks_workspace, no_source
from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.hashes import MARKER
from flywheel.core.storage import file_system, from_file_uri

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://?(?=[^/])")  # one slash: `Path` collapsed it
HUB = "datasets:"  # before the id of a data set on the Hugging Face hub
_MAGIC = re.compile(r"[*?\[]")
_TAGS = ("ETag", "etag", "oid", "blob_id", "Content-MD5", "content_md5", "md5Hash", "crc32c")
_TIMES = ("LastModified", "last_modified", "mtime", "modified", "updated", "Last-Modified", "created")
_TOGETHER = 32  # remote files that are read at once
_TOGETHER_BYTES = 64 * 1024 * 1024
_PAGE = 1000  # objects that S3 lists at once
_BLOCK = 1024 * 1024


@dataclass(frozen=True)
class File:
    """A file of a source, as it was listed.

    name: path below the source, with slashes. mtime_ns: time of the last change; of a remote file, a number made from
    its tag or time, which changes with its content. size: bytes; 0 where the server does not say.
    """

    uri: str
    name: str
    size: int = 0
    mtime_ns: int = 0
    fault: str | None = None

    @property
    def version(self) -> str:
        """SHA-256 of what changes when the file does."""
        return digest(self.uri, self.size, self.mtime_ns)


def absolute(address: str | os.PathLike[str]) -> str:
    """The address as it is recorded: an absolute path, a URL, or the id of a data set."""
    text = from_file_uri(os.fspath(address))
    if text.startswith(HUB):
        return text
    if found := _SCHEME.match(text):
        return f"{found[1]}://{text[found.end() :]}"
    return os.path.abspath(os.path.expanduser(text))


def is_remote(address: str) -> bool:
    """True for anything but a path on this machine."""
    return _SCHEME.match(address) is not None


def missing(address: str) -> bool:
    """True for a path on this machine where nothing is, unless it is a glob."""
    if address.startswith(HUB) or is_remote(address):
        return False
    path = absolute(address)
    return not os.path.lexists(path) and _root(path) is None


def find(address: str, most: int | None = None) -> Iterator[File]:
    """The files at an absolute address, in order: a file, all files below a folder or prefix, or those of a glob.

    Hidden files (name starts with a dot) are left out. most: about how many are wanted; S3 is not asked for all then.
    Errors: `UsageError` if there is nothing, or it cannot be read.
    """
    yield from _find_remote(address, most) if is_remote(address) else _find_local(address)


def state(uri: str) -> File:
    """One file as it is now; its fault says why it cannot be read."""
    name = uri.rpartition("/")[2]
    try:
        if not is_remote(uri):
            return _stated(uri, name, os.stat(uri))
        system, path = file_system(uri)
        return _informed(uri, name, asked(lambda: system.info(path)))
    except OSError as error:
        return File(uri, name, fault=f"unreadable: {error.strerror or error}")


def open_file(file: File) -> BinaryIO:
    """Open a file for random access; one that its server cannot read in parts is copied first. Errors: `OSError`."""
    if file.fault:  # such as a pipe, which would wait for its writer
        raise OSError(file.fault)
    if not is_remote(file.uri):
        return open(file.uri, "rb")
    system, path = file_system(file.uri)
    if file.uri.startswith("http") and not asked(lambda: system.info(path)).get("partial"):
        return open(copied(file), "rb")
    return asked(lambda: system.open(path, "rb"))


def read(files: Sequence[File]) -> Iterator[bytes | BadInput]:
    """The bytes of each file in order, or why there are none; remote ones are read several at a time.

    Errors: `UsageError` if a server does not answer: the files are not to blame.
    """
    for remote, group in groupby(files, lambda f: is_remote(f.uri)):
        if remote:
            for part in _parts(list(group)):
                yield from _read_remote(part)
        else:
            yield from map(_read_local, group)


def copied(file: File) -> Path:
    """A local copy of a remote file, kept until others replace it. Errors: `OSError`."""
    system, path = file_system(file.uri)
    options = {"block_size": 0} if file.uri.startswith("http") else {}  # of HTTP, 0 asks for a plain stream

    def write(place: Path) -> None:
        with open(place, "wb") as out, system.open(path, "rb", **options) as source:
            while block := source.read(_BLOCK):
                out.write(block)

    return spooled(file.version, "copy", lambda place: asked(lambda: write(place)))


# Local ---------------------------------------------------------------------------------------------------------------
def _find_local(path: str) -> Iterator[File]:
    if os.path.isdir(path):
        if is_workspace(path):
            raise no_source(path)
        yield from _walk(path, "")
    elif os.path.lexists(path):
        yield _named(path, os.path.basename(path))
    elif (root := _root(path)) is not None:
        yield from _find_glob(path, root)
    else:
        raise UsageError(f"source {path} does not exist: pass a file, a folder, a glob or an address")


def _root(path: str) -> str | None:
    """The folder before the first wildcard; None without one. A folder that exists is none, whatever its name."""
    parts = path.split("/")
    for n, part in enumerate(parts):
        if _MAGIC.search(part) and not os.path.isdir("/".join(parts[: n + 1])):
            return "/".join(parts[:n]) or "/"
    return None


def _find_glob(pattern: str, root: str) -> Iterator[File]:
    below = pattern[len(root) :].lstrip("/")
    seen, is_own = False, cache(is_workspace)  # asked of each folder once, not of each file in it
    for path in sorted(glob.iglob(f"{glob.escape(root)}/{below}", recursive=True), key=os.fsencode):
        name = os.path.relpath(path, root)
        if os.path.isdir(path):
            if "**" not in pattern and not is_own(path):  # otherwise the pattern lists what is below by itself
                yield from _walk(path, name + "/")
                seen = True
        elif not any(is_own(f"{root}/{folder}") for folder in _folders(name)):
            yield _named(path, name)
            seen = True
    if not seen:
        raise UsageError(f"source {pattern}: no file matches")


def _fixed(pattern: str) -> str:
    """The prefix before the first part with a wildcard."""
    parts = pattern.split("/")
    first = next(n for n, part in enumerate(parts) if _MAGIC.search(part))
    return "/".join(parts[:first]) or "/"


def _walk(folder: str, below: str) -> Iterator[File]:
    """Every file below a folder, in path order, however deep; nothing of a workspace below it."""
    waiting: list[tuple[os.DirEntry[str] | Path, str]] = [(Path(folder), below)]
    while waiting:
        entry, name = waiting.pop()
        if isinstance(entry, Path) or entry.is_dir(follow_symlinks=False):
            prefix = name if isinstance(entry, Path) else name + "/"
            try:
                inside = sorted(os.scandir(entry), key=lambda e: os.fsencode(e.name), reverse=True)
            except OSError as error:
                yield File(os.fspath(entry), name.rstrip("/"), fault=f"unreadable folder: {error.strerror}")
            else:
                if isinstance(entry, Path) or not is_workspace(entry.path):
                    waiting += [(e, prefix + e.name) for e in inside if not e.name.startswith(".")]
        else:
            yield _named(entry.path, name)


def _folders(name: str) -> list[str]:
    """The folders on the way to a file, without the first: `a` and `a/b` of `a/b/c.png`."""
    parts = name.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _named(path: str, name: str) -> File:
    try:
        path.encode()
    except UnicodeEncodeError:
        uri, name = (os.fsencode(p).decode("utf-8", "backslashreplace") for p in (path, name))
        return File(uri, name, fault="file name is not UTF-8: rename it")
    try:
        return _stated(path, name, os.stat(path))
    except OSError as error:
        return File(path, name, fault=f"unreadable: {error.strerror}")


def _stated(path: str, name: str, found: os.stat_result) -> File:
    fault = None
    if stat.S_ISDIR(found.st_mode):
        fault = "link to a folder: not followed"
    elif not stat.S_ISREG(found.st_mode):
        fault = "not a regular file"
    return File(path, name, found.st_size, found.st_mtime_ns, fault)


def _read_local(item: File) -> bytes | BadInput:
    if item.fault:  # such as a pipe, which would wait for its writer
        return BadInput(item.fault)
    try:
        with open(item.uri, "rb") as file:
            now = os.fstat(file.fileno())
            if (now.st_size, now.st_mtime_ns) != (item.size, item.mtime_ns):
                return BadInput("changed while it was being ingested: ingest the source again")
            return file.read()
    except OSError as error:
        return BadInput(f"unreadable: {reason(error)}")


# Remote --------------------------------------------------------------------------------------------------------------
def _find_remote(address: str, most: int | None) -> Iterator[File]:
    system, path = file_system(address)
    system.invalidate_cache()
    try:
        found, root = asked(lambda: _listing(system, path, most))
    except OSError as error:
        raise UsageError(f"source {address} cannot be read: {reason(error)}") from error
    whole, marker = _MAGIC.search(address) is None, f"{root.rstrip('/')}/{MARKER}"
    if whole and marker in found and marks_workspace(lambda: asked(lambda: system.cat_file(marker))):
        raise no_source(address)
    own = _workspaces(system, found, root, listed=whole)
    found = {place: info for place, info in found.items() if not place.startswith(own)} if own else found
    if not found:
        raise UsageError(f"source {address} holds no files")
    scheme = address.partition("://")[0]
    for place, info in sorted(found.items()):
        name = unquote(place[len(root) :]) if scheme.startswith("http") else place[len(root) :]
        name = name.lstrip("/") or _last(place)
        if not any(part.startswith(".") for part in name.split("/")):
            yield _informed(place if "://" in place else f"{scheme}://{place.lstrip('/')}", name, info)


def _listing(system: Any, path: str, most: int | None) -> tuple[dict[str, Mapping[str, Any]], str]:
    """Path → what the file system says of each file, and the part of their paths that is not their name."""
    if _MAGIC.search(path.partition("?")[0] if path.startswith("http") else path):
        found = system.glob(path, detail=True)
        folders = [p for p, info in found.items() if info["type"] == "directory" and "**" not in path]
        files = {p: info for p, info in found.items() if info["type"] == "file"}
        for folder in folders:
            files |= system.find(folder, detail=True)
            if not path.startswith("http") and (own := system.info(folder))["type"] == "file":
                files[folder] = own  # an object and a prefix may have the same name
        return {p: files[p] for p in _real(files)}, _fixed(path)
    info = system.info(path)
    if path.startswith("http") and info["type"] == "directory":  # an index says neither sizes nor versions
        places = [p for p in _real(system.find(path)) if p.startswith(path)]
        with ThreadPoolExecutor(_TOGETHER) as pool:
            return dict(zip(places, pool.map(system.info, places))), path.rstrip("/")
    if info["type"] == "file" and not path.endswith("/"):
        return {path: info}, path
    found = _some(system, path, most) if most and hasattr(system, "call_s3") else system.find(path, detail=True)
    return {p: found[p] for p in _real(found)}, path.rstrip("/")


def _workspaces(system: Any, found: Iterable[str], root: str, *, listed: bool) -> tuple[str, ...]:
    """The prefixes of workspaces below the root. listed: all files were, so that a marker is among them."""
    root, places = root.rstrip("/"), set(found)
    folders = {f"{root}/{f}" for p in places for f in _folders(p[len(root) :].lstrip("/"))}
    markers = [m for f in folders if (m := f"{f}/{MARKER}") in places or not listed]
    with ThreadPoolExecutor(_TOGETHER) as pool:
        own = pool.map(lambda m: marks_workspace(lambda: asked(lambda: system.cat_file(m))), markers)
        return tuple(m.removesuffix(MARKER) for m, is_one in zip(markers, own) if is_one)


def _some(system: Any, path: str, most: int) -> dict[str, Mapping[str, Any]]:
    """The first objects below a prefix of S3: a whole listing takes a request per thousand."""
    bucket, _, prefix = path.partition("/")
    found: dict[str, Mapping[str, Any]] = {}
    more: dict[str, str] = {}
    while len(found) < most:
        wanted = {"Prefix": prefix.rstrip("/") + "/" * bool(prefix), "MaxKeys": min(most, _PAGE)}
        page = system.call_s3("list_objects_v2", Bucket=bucket, **wanted, **more)
        found |= {f"{bucket}/{o['Key']}": o | {"size": o["Size"]} for o in page.get("Contents", ())}
        if not page.get("IsTruncated"):
            break
        more = {"ContinuationToken": page["NextContinuationToken"]}
    return found


def _real(found: Iterable[str]) -> list[str]:
    """Without the empty objects that mark folders, and the sort links of an HTML index."""
    return [p for p in found if not p.endswith("/") and not ("://" in p and urlsplit(p).query)]


def _last(place: str) -> str:
    return unquote(urlsplit(place).path.rpartition("/")[2]) if "://" in place else place.rpartition("/")[2]


def _informed(uri: str, name: str, info: Mapping[str, Any]) -> File:
    fault = "not a regular file" if info.get("type") == "directory" else None
    return File(uri, name, info.get("size") or 0, _version(info), fault)


def _version(info: Mapping[str, Any]) -> int:
    """A number that changes when the file does; 0 where its server says nothing about it."""
    if tag := next((str(info[k]) for k in _TAGS if info.get(k)), ""):
        return int(hashlib.sha256(tag.encode()).hexdigest()[:15], 16)
    time = next((info[k] for k in _TIMES if info.get(k)), None)
    if isinstance(time, datetime):
        return int(time.timestamp() * 1e9)
    if isinstance(time, int | float):
        return int(time * 1e9)
    return int(hashlib.sha256(str(time).encode()).hexdigest()[:15], 16) if time else 0


def _parts(files: Sequence[File]) -> Iterator[list[File]]:
    """Files that are read together: of one file system, few, and not too large."""
    part: list[File] = []
    size = 0
    for file in files:
        if part and (len(part) == _TOGETHER or size + file.size > _TOGETHER_BYTES):
            yield part
            part, size = [], 0
        part.append(file)
        size += file.size
    if part:
        yield part


def _read_remote(files: Sequence[File]) -> Iterator[bytes | BadInput]:
    system, _ = file_system(files[0].uri)
    paths = [file_system(f.uri)[1] for f in files]
    together: dict[str, Any] = {}
    if system.async_impl and len(paths) > 1 and all(0 < f.size <= MAX_BYTES for f in files):
        with suppress(Exception):  # each is asked for again below, with its own error
            together = system.cat(paths, on_error="omit")
    for file, path in zip(files, paths):
        content = together.get(path)
        yield _whole(file, content if isinstance(content, bytes) else _read_one(system, path))


def _read_one(system: Any, path: str) -> bytes | BadInput:
    def limited() -> bytes:
        with system.open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)

    try:
        return asked(limited)
    except OSError as error:
        return BadInput(f"unreadable: {reason(error)}")


def _whole(file: File, content: bytes | BadInput) -> bytes | BadInput:
    if isinstance(content, BadInput):
        return content
    if len(content) > MAX_BYTES:
        return BadInput(f"too large: over {MAX_BYTES} bytes")
    if file.size and len(content) != file.size:
        return BadInput("changed while it was being ingested: ingest the source again")
    return content
