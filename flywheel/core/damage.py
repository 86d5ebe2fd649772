"""Errors that say that a file of a workspace is damaged or gone, whoever raises them (Arrow, DuckDB, Delta, Python)."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from flywheel.core.hashes import MARKER

_DAMAGED = (
    "No magic bytes found",
    "Parquet magic bytes not found",
    "Parquet file size is",
    "too small to be a Parquet file",
    "deserialize thrift",
    "TProtocolException",
    "Corrupt",
)
_GONE = (os.strerror(errno.ENOENT), "No files found that match the pattern", "is not JSON")


def told(error: BaseException) -> str | None:
    """One sentence about the file that an error, or its cause, finds damaged or gone; None for any other error."""
    if line := marked(error, _DAMAGED):
        return f"a file is damaged ({line}): `flywheel fsck` names all such files; restore them from a copy"
    absent = next((str(e) for e in _with_causes(error) if isinstance(e, FileNotFoundError)), None)
    if (line := marked(error, _GONE) or absent) and _in_workspace(line):
        what = "`flywheel fsck` names all such files, and what to do about each"
        return f"a file of the workspace is missing or damaged ({line}): {what}"
    return None


def marked(error: BaseException | None, marks: Sequence[str]) -> str | None:
    """The last line with one of the marks, of an error or of its cause; None if there is none."""
    for each in _with_causes(error):
        lines = [line.strip() for line in str(each).splitlines() if any(mark in line for mark in marks)]
        if lines:
            return lines[-1]
    return None


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _in_workspace(line: str) -> bool:
    """Whether a message names a file below a workspace on this machine."""
    places = [Path(name) for name in re.findall(r"""(?:^|['"])(/[^'"]+)""", line)]
    return any((folder / MARKER).is_file() for place in places for folder in place.parents)
