"""CSV whose wrong lines cost themselves."""

from __future__ import annotations

import io

from curation.sources.csvs import delimiter, records, says_delimiter


def _read(text: str, delimiter: str = ",") -> list[tuple[int, list[str] | str]]:
    return list(records(io.StringIO(text, newline=""), delimiter))


def test_records_go_over_lines_and_know_their_last_one() -> None:
    assert _read('a,b\r\n"x\r\ny", "1, 2"\r\n\r\nc,"say ""hi"""') == [
        (1, ["a", "b"]),
        (3, ["x\r\ny", "1, 2"]),
        (4, []),
        (5, ["c", 'say "hi"']),
    ]


def test_a_quote_that_nobody_closed_costs_its_own_line() -> None:
    found = _read('a,"open\nb,"fine"\nc,"two\nlines"\nd,"open\ne,last\n')
    assert [(number, fields) for number, fields in found if not isinstance(fields, str)] == [
        (2, ["b", "fine"]),
        (4, ["c", "two\nlines"]),
        (6, ["e", "last"]),
    ]
    assert [number for number, fields in found if isinstance(fields, str)] == [1, 5]


def test_quotes_around_a_part_of_a_field_are_taken() -> None:
    assert _read('a\t"Nice" picture\nb\t5" pipe\n', "\t") == [(1, ["a", "Nice picture"]), (2, ["b", '5" pipe'])]


def test_many_open_quotes_are_read_in_no_time() -> None:
    found = _read('a,"open\n' * 2000 + "z,last")
    assert found[-1] == (2001, ["z", "last"]) and sum(isinstance(f, str) for _, f in found) == 2000


def test_delimiters() -> None:
    told = {"a,b;c\n": ",", "a;b\r\n1,2;3": ";", "a\tb": "\t", "SEP=|\r\na|b": "|", "a": ","}
    assert {text: delimiter(text) for text in told} == told
    assert [says_delimiter(text) for text in told] == [False, False, False, True, False]
