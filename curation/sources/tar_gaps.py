"""What a tar has lost between its members, or at its end."""

from __future__ import annotations

import os
import tarfile
from functools import cached_property
from typing import BinaryIO

_BLOCK = 512  # bytes: members start at multiples of it
_MARKER, _RECORD = 2 * _BLOCK, 20 * _BLOCK  # bytes: zeros at the end of an archive, and what most writers fill up to
_RECORDS = tuple(_BLOCK << n for n in range(6, 12))  # … and what some do: blocking factors of 64 to 2,048


class Gaps:
    """What lies between the members of an archive: nothing, an end marker as its writer fills it up, or a loss.

    Writers end an archive with two blocks of zeros, and either stop there or fill up the record of 20 blocks. Zeros of
    another length stand where members were, unless the whole file is made of records of another length.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._whole = raw.seek(0, os.SEEK_END)
        self._begins = {0}  # of this archive, of several that were joined; bytes may stand before the first
        self.expected = 0  # offset of the next member, or of the end marker

    def before(self, member: tarfile.TarInfo | None, behind: int) -> str | None:
        """What is lost before this member, or before the end; None where nothing is. Members come in order.

        behind: offset of what follows the member.
        """
        start, end = self.expected, self._whole if member is None else member.offset
        fault = self._fault(start, end, last=member is None)
        if member is not None:
            if start == 0:
                self._begins.add(end)
            elif fault is None and end > start:
                self._begins = {end}
            self.expected = behind
        return fault

    def _fault(self, start: int, end: int, *, last: bool) -> str | None:
        if lost := self._content(start, end):
            return f"{lost} bytes at offset {start} are not a readable member"
        zeros = end - start
        if last and (zeros < _MARKER or end % _BLOCK):
            return f"the archive has no end marker: it is cut off at offset {end}"
        if not zeros and not last:
            return None
        if zeros == _MARKER and (last or self._ends_bare):
            return None
        if any((end - begin) % size == 0 for begin in self._begins for size in self._records(zeros)):
            return None
        either = ", unless its writer fills up long records (tar -b)" if last and not self._whole % _RECORDS[0] else ""
        found = f"{zeros} bytes at offset {start} are zero, unlike the end of an archive"
        return f"{found}: members that stood there are lost{either}"

    def _records(self, zeros: int) -> list[int]:
        """Lengths of a record whose end so many zeros may fill up.

        Others than the usual one only where the file is not of usual records, but of these.
        """
        sizes = [_RECORD] if self._whole % _RECORD == 0 else [_RECORD, *(r for r in _RECORDS if self._whole % r == 0)]
        return [size for size in sizes if _MARKER <= zeros < _MARKER + size]

    @cached_property
    def _ends_bare(self) -> bool:
        """Whether the last archive's end marker is not filled up: so the writer ends archives."""
        return self._whole >= _MARKER + _BLOCK and (
            self._content(self._whole - _MARKER - _BLOCK, self._whole - _MARKER) > 0
            and self._content(self._whole - _MARKER, self._whole) == 0
        )

    def _content(self, start: int, end: int) -> int:
        """Number of bytes between two offsets up to the last that is not zero: 0 for zeros alone."""
        self._raw.seek(start)
        last, place = 0, start
        while place < end and (part := self._raw.read(min(2**20, end - place))):
            place += len(part)
            if kept := part.rstrip(b"\0"):
                last = place - len(part) + len(kept) - start
        return last
