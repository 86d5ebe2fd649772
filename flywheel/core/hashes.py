"""Hashes of a workspace's files: every writer records what it writes, so that `flywheel fsck` can verify every byte.

The records of a folder's files are lines of `.hashes/log` in that folder. A record is written before its file appears,
so that a killed writer leaves no file without one. A line that a kill cut off counts for nothing; whoever writes next
ends it by a record that says so, which tells it from a line that was damaged. On S3, where nothing can be appended to,
each record is an object of its own in `.hashes/`, written after its file, whose metadata holds the hash as well.
Folders outside a workspace get no records.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel.core.errors import UsageError
from flywheel.core.hash_line import Entry, cut_off, ended, parsed, seam
from flywheel.core.storage import remote

if TYPE_CHECKING:
    from flywheel.core.storage import RemotePath

FOLDER = ".hashes"
MARKER = "workspace.json"  # marks the root of a workspace
LOG = "log"
SELF = "./"  # a record about the folder itself
_TAG = "sha256"  # in the metadata of an object
_ATTRIBUTE = "user.sha256"  # of a local file
_KEPT = 3  # records per name that are looked at: the newest, and those before a write that did not end
_LONG = 1 << 20  # bytes of a log that `compact` rewrites
FILE, FOLDERS, GROWING, LIVING, REMOVED, UNDONE = "file", "folder", "growing", "living", "removed", "undone"
_BLOCK = 4096  # bytes that are read at once of the end of a log


@dataclass(frozen=True)
class Records:
    """Every record of a folder: the newest per name, older ones, and how many lines were unreadable, or cut off."""

    newest: dict[str, Entry]
    older: dict[str, tuple[Entry, ...]]
    damaged: int
    exist: bool
    torn: int = 0


def content(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        value = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), value


def _in_workspace(folder: Path) -> bool:
    place = str(folder)
    if place not in _inside and any((above / MARKER).exists() for above in (folder, *folder.parents)):
        _inside.add(place)
    return place in _inside


_LINKLESS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
_inside: set[str] = set()  # folders in workspaces: asking S3 for markers takes a request per level
_newest: dict[str, int] = {}  # folder on S3 that has records → ns of its newest one, by its name


def record(path: Path, source: Path | None = None, *, kind: str = FILE) -> Entry | None:
    """Record the content of a file that is about to appear at `path`; None outside a workspace.

    source: where these bytes are now; the file itself by default.
    """
    if not covered(path):
        return None
    entry = Entry(path.name, kind, *content(source or path))
    write(path.parent, [entry])
    return entry


def tag(path: Path, source: Path) -> Entry | None:
    """The record of a file that is about to appear at `path`, for `write`; None outside a workspace.

    `source`, which has its bytes, gets the hash as an attribute: records are not synced, and a power cut may take the
    newest ones, but an attribute reaches the disk with its file.
    """
    if not covered(path):
        return None
    entry = Entry(path.name, FILE, *content(source))
    with suppress(OSError, AttributeError):  # a file system, or a system, without attributes
        os.setxattr(source, _ATTRIBUTE, bytes.fromhex(entry.sha256))
    return entry


def upload(source: Path, path: RemotePath, *, recorded: bool = True) -> None:
    """Write a local file to S3, with its hash."""
    if not recorded or not covered(path):
        path.fs.put_file(str(source), str(path))
        return
    entry = Entry(path.name, FILE, *content(source))
    path.fs.put_file(str(source), str(path), Metadata={_TAG: entry.sha256})
    write(path.parent, [entry])


def tagged(path: Path) -> str:
    """The hash that an object's own metadata, or a local file's attribute, holds; empty where there is none."""
    if remote(path):
        return str(path.fs.metadata(str(path)).get(_TAG, ""))
    try:
        return os.getxattr(path, _ATTRIBUTE).hex()
    except (OSError, AttributeError):
        return ""


def note(path: Path, kind: str) -> None:
    """Record a change that has no content: a file that lives, or that is removed."""
    if covered(path):
        write(path.parent, [Entry(path.name, kind)])


def living(folder: Path) -> None:
    """Record that the content of a folder changes without records, until it is sealed."""
    if _in_workspace(folder):
        write(folder, [Entry(SELF, LIVING)])


def seal(folder: Path, *, again: bool = False) -> None:
    """Record every file of a local folder that another library wrote.

    again: also those that have a record, because the folder was living.
    """
    if remote(folder) or not _in_workspace(folder):
        return
    for place, _, names in os.walk(folder):
        if FOLDER in Path(place).parts:
            continue
        known = read(Path(place)).newest if not again else {}
        paths = [Path(place, name) for name in sorted(names) if name not in known]
        entries = [Entry(path.name, FILE, *content(path)) for path in paths]
        if entries:
            write(Path(place), entries)
    if again:
        gone = [name for name, e in read(folder).newest.items() if e.kind == FILE and not (folder / name).exists()]
        write(folder, [*(Entry(name, REMOVED) for name in gone), Entry(SELF, FOLDERS)])


class Growing:
    """A file that is appended to; each record covers it up to its end."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self._size, self._hash = path, len(content), hashlib.sha256(content)

    def append(self, data: bytes) -> None:
        """Record and add bytes."""
        self._hash.update(data)
        self._size += len(data)
        if covered(self.path):
            write(self.path.parent, [Entry(self.path.name, GROWING, self._size, self._hash.hexdigest())])
        with self.path.open("ab") as file:
            file.write(data)


def undo(path: Path, entry: Entry | None) -> None:
    """Take back a record of a file that did not appear."""
    if entry is not None:
        with suppress(OSError):  # a full disk: fsck then names the file as missing
            write(path.parent, [Entry(entry.name, UNDONE, entry.size, entry.sha256)])


def entered(folder: Path) -> None:
    """Record in its parent that a folder is there, for one that is renamed into place with its records."""
    if covered(folder):
        write(folder.parent, [Entry(f"{folder.name}/", FOLDERS)])


def removed_folder(folder: Path) -> None:
    """Record in its parent that a folder is removed."""
    if covered(folder) and not folder.name.startswith("."):
        write(folder.parent, [Entry(f"{folder.name}/", REMOVED)])


def covered(path: Path) -> bool:
    """Whether files at this path have records."""
    return FOLDER not in path.parts and _in_workspace(path.parent)


def write(folder: Path, entries: Iterable[Entry]) -> None:
    """Append records of a folder's files."""
    data = b"".join(entry.line() for entry in entries)
    if remote(folder):
        _enter(folder)
        _newest[str(folder)] = stamp = max(time.time_ns(), _newest[str(folder)] + 1)  # also once a clock was put back
        place = folder / FOLDER / f"{stamp:020d}-{uuid.uuid4().hex[:8]}"
        place.fs.pipe_file(str(place), data)
        return
    log = folder / FOLDER / LOG
    while not _append(log, data):
        _enter(folder)


def _append(log: Path, data: bytes) -> bool:
    """Append to a log all or nothing; False if its folder is missing, or the log was just made or compacted."""
    try:
        descriptor = os.open(log, os.O_RDWR | os.O_APPEND)
    except FileNotFoundError:
        return _begin(log, data)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        state = os.fstat(descriptor)
        if state.st_ino != log.stat().st_ino:
            return False
        data = _seam(descriptor, state.st_size) + data
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(log))
        except OSError:
            os.ftruncate(descriptor, state.st_size)
            raise
    finally:
        os.close(descriptor)
    return True


def _seam(descriptor: int, size: int) -> bytes:
    """What ends the last line of a log, if a killed writer did not."""
    end, start = b"", size
    while start and b"\n" not in end:
        step = min(start, _BLOCK)
        start -= step
        end = os.pread(descriptor, step, start) + end
    return seam(end.rpartition(b"\n")[2])


def _begin(log: Path, data: bytes) -> bool:
    """Make a log that has its first records when it appears; False if its folder is missing, or there is one by now."""
    tmp = log.with_name(f".{log.name}.{uuid.uuid4().hex}.tmp")
    try:
        tmp.write_bytes(data)
        os.link(tmp, log)
    except (FileNotFoundError, FileExistsError):
        return False
    except OSError as error:
        if error.errno not in _LINKLESS:
            raise
        with suppress(FileExistsError), log.open("xb") as file:  # a file system without hard links
            file.write(data)
            return True
        return False
    finally:
        tmp.unlink(missing_ok=True)
    return True


def _enter(folder: Path) -> None:
    """Create a folder's place for records, and record the folder in its parent's."""
    if remote(folder):
        if str(folder) in _newest:
            return
        names = [name.rpartition("/")[2] for name in folder.fs.find(str(folder / FOLDER), maxdepth=1)]
        new, _newest[str(folder)] = not names, max((_stamp(name) for name in names), default=0)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        new = not (folder / FOLDER).is_dir()
    if new and not folder.name.startswith(".") and covered(folder):
        write(folder.parent, [Entry(f"{folder.name}/", FOLDERS)])
    if new and not remote(folder):  # after its parent's record: else a full disk, or a kill, would leave it without one
        (folder / FOLDER).mkdir(exist_ok=True)


def _stamp(name: str) -> int:
    """When a record on S3 was written, as its name says: ns; 0 for another object."""
    digits = name.partition("-")[0]
    return int(digits) if digits.isdecimal() else 0


def read(folder: Path) -> Records:
    """The records of a folder's files."""
    entries, damaged, torn, exist = [], 0, 0, False
    for data in _logs(folder):
        exist = True
        *lines, rest = data.split(b"\n")
        for line in filter(None, lines):
            if entry := parsed(line):
                entries.append(entry)
            elif ended(line):
                torn += 1
            else:
                damaged += 1
        if entry := parsed(rest):
            entries.append(entry)  # whole but for the line break
        if rest or not lines:
            whole = not rest or bool(entry) or cut_off(rest)
            torn, damaged = torn + whole, damaged + (not whole)
    stacks: dict[str, list[Entry]] = {}
    for entry in entries:
        stack = stacks.setdefault(entry.name, [])
        if entry.kind != UNDONE:
            stack.append(entry)
            del stack[:-_KEPT]
        elif stack and (stack[-1].size, stack[-1].sha256) == (entry.size, entry.sha256):
            stack.pop()
    filled = {name: stack for name, stack in stacks.items() if stack}
    return Records(
        {k: v[-1] for k, v in filled.items()}, {k: tuple(v[:-1]) for k, v in filled.items()}, damaged, exist, torn
    )


def _logs(folder: Path) -> Iterator[bytes]:
    place = folder / FOLDER
    if remote(place):
        names = sorted(place.fs.find(str(place)))
        contents = place.fs.cat(names) if names else {}
        yield from (contents[name] for name in names)
        return
    if place.is_dir():
        for path in sorted(place.iterdir()):
            if not path.name.startswith("."):
                yield path.read_bytes()


def verify(path: Path, advice: str) -> None:
    """Check a file against its record, if it has one. Errors: `UsageError` with the advice if they differ."""
    if not covered(path):
        return
    records = read(path.parent)
    known = [e for e in (records.newest.get(path.name), *records.older.get(path.name, ())) if e and e.kind == FILE]
    if known and content(path) not in {(e.size, e.sha256) for e in known}:
        raise UsageError(f"{path} has changed since it was written (its sha256 differs): {advice}")


def written(folder: Path, paths: Iterable[Path]) -> list[Path]:
    """Files of a folder in the order in which they were last written, by their records, which a copy keeps."""
    newest = read(folder).newest
    return sorted(paths, key=lambda p: (newest[p.name].at if p.name in newest else 0, p.name))


def compact(folder: Path) -> bool:
    """Rewrite a long log with the newest two records of each name; True if it was. Writers may go on."""
    log = folder / FOLDER / LOG
    if remote(folder) or not log.is_file() or log.stat().st_size < _LONG:
        return False
    with log.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        records = read(folder)
        kept = [e for name, e in records.newest.items() for e in (*records.older[name][-1:], e)]
        data = b"".join(entry.line() for entry in kept)
        if records.damaged or records.torn or 2 * len(data) > log.stat().st_size:
            return False
        tmp = log.with_name(f".{LOG}.tmp")
        tmp.write_bytes(data)
        os.replace(tmp, log)
    return True
