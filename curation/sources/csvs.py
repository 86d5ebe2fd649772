"""CSV from outside: a line that is wrong costs itself, and a quote that nobody closed no other line."""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator

DELIMITERS = ",;\t"
_SEPARATOR = re.compile(r'sep=([^"]?)', re.IGNORECASE)


def rows(text: str, delimiter: str = "") -> Iterator[tuple[int, dict[str, str] | str]]:
    """(line number, fields by the names of the header) of each row, or (line number, why it is none).

    Blank lines and a line `sep=;` above the header are no rows; without a header there are none. delimiter: empty for
    what the first line says.
    """
    names: list[str] | None = None
    for number, fields in records(io.StringIO(text, newline=""), delimiter or _delimiter(text)):
        if isinstance(fields, str):
            yield number, f"not a CSV line: {fields}"
            if names is None:
                return
        elif not fields or (names is None and is_separator(fields)):
            continue
        elif names is None:
            names = [name.strip() for name in fields]
        elif len(fields) != len(names):
            yield number, "has more or fewer fields than the header"
        else:
            yield number, dict(zip(names, fields))


def said_delimiter(text: str) -> str:
    """What a line such as `sep=;` above the header says; empty where there is none."""
    said = _SEPARATOR.fullmatch(_first_line(text))
    return said[1] if said else ""


def is_separator(fields: list[str]) -> bool:
    """Whether the fields are those of a line such as `sep=;`, whatever it was cut at."""
    return _SEPARATOR.fullmatch("".join(fields)) is not None


def _delimiter(text: str) -> str:
    """By the first line: spreadsheets of half of Europe write semicolons, and some say so above the header."""
    line = _first_line(text)
    return said_delimiter(text) or next((m for m in DELIMITERS if m in line), DELIMITERS[0])


def _first_line(text: str) -> str:
    return text.lstrip("\r\n").partition("\n")[0].strip("\r")


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
            open_ = taken[0].count('"') % 2
            fields = _alone(taken[0], delimiter) or ("a quote is opened and not closed" if open_ else str(error))
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
