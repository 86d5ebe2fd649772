"""CSV from outside: a line that is wrong costs itself, and a quote that nobody closed no other line."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator

_SAID = re.compile(r"sep=(.)", re.IGNORECASE)  # a line that spreadsheets write above the header


def delimiter(text: str) -> str:
    """By the first line of a CSV: spreadsheets of half of Europe write semicolons, and some say so above the header."""
    line = text.partition("\n")[0].strip("\r")
    if said := _SAID.fullmatch(line.strip()):
        return said[1]
    return next((mark for mark in ",;\t" if mark in line), ",")


def says_delimiter(text: str) -> bool:
    """Whether the first line only says what the delimiter is."""
    return _SAID.fullmatch(text.partition("\n")[0].strip()) is not None


def records(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """(number of its last line, fields) of each record, or (number of the line, why it is none).

    lines: with their ends. A record may go over lines if its quotes are closed, and blanks may stand before a quote.
    """
    source, again, taken, number = iter(lines), deque[str](), list[str](), 0

    def feed() -> Iterator[str]:
        while (line := again.popleft() if again else next(source, None)) is not None:
            taken.append(line)
            yield line

    reader = _reader(feed(), delimiter)
    while True:
        taken.clear()
        try:
            fields: list[str] | str = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            again.extendleft(reversed(taken[1:]))
            del taken[1:]
            fields = _alone(taken[0], delimiter) or str(error)
            reader = _reader(feed(), delimiter)  # as one that raised has fields left
        number += len(taken)
        yield number, fields


def _alone(line: str, delimiter: str) -> list[str] | None:
    """Fields of a line that quotes only a part of one: the quotes must be closed."""
    if line.count('"') % 2:
        return None
    try:
        return next(_reader(iter([line]), delimiter, strict=False))
    except csv.Error:
        return None


def _reader(lines: Iterator[str], delimiter: str, *, strict: bool = True) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=delimiter, strict=strict, skipinitialspace=True)
