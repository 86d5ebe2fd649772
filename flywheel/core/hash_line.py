"""A record of a file's hash as a line of a log, and a line that a killed writer left without an end."""

from __future__ import annotations

import hashlib
import json
import re
import time
import zlib
from dataclasses import dataclass

_TORN = "torn"  # kind of the record that ends the line before it, which has no end
_SEAM = b"\0"  # between that line and the record
_LINE_BEGINS = re.compile(rb"[0-9a-f]{0,8}(?:$|[ \0])")


@dataclass(frozen=True)
class Entry:
    """What a writer recorded about one name in a folder.

    kind: `file` has these bytes; `folder` has records of its own; `growing` begins with these bytes; `living` changes
    without records until the next one; `removed` and `undone` (a write that was given up) have none.
    """

    name: str  # relative to the folder, with "/" for a file below it
    kind: str
    size: int = 0  # bytes
    sha256: str = ""
    at: int = 0  # ns

    def line(self) -> bytes:
        """The record as a line that begins with its checksum."""
        text = json.dumps([self.name, self.kind, self.size, self.sha256, self.at or time.time_ns()]).encode()
        return b"%08x %s\n" % (zlib.crc32(text), text)


def seam(rest: bytes) -> bytes:
    """What a writer puts before its own lines, after `rest`: what follows the last line break of the log."""
    if not rest:
        return b""
    torn = Entry("", _TORN, len(rest), hashlib.sha256(rest).hexdigest())
    return _SEAM + torn.line() if cut_off(rest) else b"\n"


def cut_off(rest: bytes) -> bool:
    """Whether a line without an end may be what a killed writer wrote of it; else its end is damaged."""
    return not parsed(rest) and not parsed(rest[:-1]) and bool(_LINE_BEGINS.match(rest))


def ended(line: bytes) -> bool:
    """Whether a line is one that was cut off, and the record that says so."""
    rest, _, last = line.rpartition(_SEAM)
    entry = parsed(last)
    return bool(entry and (entry.kind, entry.sha256) == (_TORN, hashlib.sha256(rest).hexdigest()))


def parsed(line: bytes) -> Entry | None:
    """The record of a line without its line break; None if it is damaged, or none."""
    checksum, _, text = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text) or checksum != b"%08x" % zlib.crc32(text):
            return None
        name, kind, size, sha256, at = json.loads(text)
        return Entry(str(name), str(kind), int(size), str(sha256), int(at))
    except (ValueError, TypeError):
        return None
