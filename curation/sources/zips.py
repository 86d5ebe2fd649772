"""A zip of pictures, read in place: the same layouts as in a folder."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from zlib import error as ZlibError

from curation.sources import MAX_BYTES, BadInput
from curation.sources.asking import reason
from curation.sources.files import File, open_file
from curation.sources.folder import Folder
from curation.sources.layout import NESTED, is_container
from curation.sources.sidecars import METADATA
from flywheel.core.errors import UsageError

_LINK = 0o120000  # Unix file type of a symbolic link, in the upper half of the attributes
_UNREADABLE = (zipfile.BadZipFile, OSError, EOFError, ZlibError, NotImplementedError, RuntimeError)


def open_zip(file: File) -> Folder:
    """The archive as a folder of its members. Errors: `UsageError` if it cannot be opened."""
    try:
        with open_file(file) as raw, zipfile.ZipFile(raw) as archive:
            members = [m for m in map(partial(_member, file), archive.infolist()) if m is not None]
    except _UNREADABLE as error:
        raise UsageError(f"source {file.uri} is not a readable zip: {reason(error)}") from error
    if not members:
        raise UsageError(f"source {file.uri} holds no files")
    return Folder(file.uri, _unique(members), read_files=partial(_read, file), kind="zip")


def _member(file: File, info: zipfile.ZipInfo) -> File | None:
    name = info.filename.replace("\\", "/")
    parts = posixpath.normpath(name).split("/")
    member = File(f"{file.uri}::{_text(name)}", _text(posixpath.normpath(name)), info.file_size, file.mtime_ns)
    fault = None
    if info.is_dir():
        return None
    if name.startswith("/") or ".." in parts:
        fault = "path traversal: the member's name leaves the archive"
    elif any(part.startswith(".") for part in parts) or parts[0] == "__MACOSX":
        return None
    elif info.external_attr >> 16 & 0o170000 == _LINK:
        fault = "link in an archive: refused"
    elif is_container(name) and posixpath.basename(name) not in METADATA:
        fault = NESTED
    elif info.flag_bits & 1:
        fault = "encrypted archive member"
    elif info.file_size > MAX_BYTES:
        fault = f"too large: {info.file_size} bytes is over {MAX_BYTES}"
    return member if fault is None else File(member.uri, member.name, member.size, member.mtime_ns, fault)


def _text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _unique(members: Sequence[File]) -> tuple[File, ...]:
    """Members with each name once: a later one of the same name replaces it, and the earlier is listed as such."""
    last = {m.name: n for n, m in enumerate(members)}
    fault = "a later member of the archive has the same name"
    return tuple(
        m if last[m.name] == n else File(f"{m.uri}@{n}", f"{m.name}@{n}", m.size, m.mtime_ns, fault)
        for n, m in enumerate(members)
    )


def _read(archive_file: File, wanted: Sequence[File]) -> Iterator[bytes | BadInput]:
    """The bytes of each member, one at a time; never more than the archive says it has."""
    with open_file(archive_file) as raw, zipfile.ZipFile(raw) as archive:
        for item in wanted:
            name = item.uri.removeprefix(archive_file.uri + "::")
            try:
                with archive.open(_info(archive, name)) as member:
                    content = member.read(MAX_BYTES + 1)
            except KeyError:
                yield BadInput("changed while it was being ingested: ingest the source again")
            except _UNREADABLE as error:
                yield BadInput(f"damaged archive member: {reason(error)}")
            else:
                yield BadInput(f"too large: over {MAX_BYTES} bytes") if len(content) > MAX_BYTES else content


def _info(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    if name in archive.NameToInfo:
        return archive.NameToInfo[name]
    found = next((i for i in archive.infolist() if _text(i.filename.replace("\\", "/")) == name), None)
    if found is None:
        raise KeyError(name)
    return found
