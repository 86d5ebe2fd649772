"""Lines of records, whole, damaged and cut off."""

from __future__ import annotations

from flywheel.core.hash_line import Entry, cut_off, ended, parsed, seam

ENTRY = Entry("a.png", "file", 3, "0" * 64, 1)
LINE = ENTRY.line()[:-1]


def test_a_line_is_its_record_and_no_other_byte() -> None:
    assert parsed(LINE) == ENTRY
    for place in range(len(LINE)):
        assert parsed(LINE[:place] + bytes([LINE[place] ^ 1]) + LINE[place + 1 :]) is None


def test_a_line_that_was_cut_off_is_told_from_a_damaged_one() -> None:
    assert all(cut_off(LINE[:n]) for n in range(1, len(LINE)))
    assert not cut_off(LINE) and not cut_off(b"x" + LINE[1:5])


def test_the_next_writer_ends_a_line_that_was_cut_off() -> None:
    assert seam(b"") == b"" and seam(LINE) == b"\n"
    rest = LINE[:20]
    line = rest + seam(rest)
    assert line.endswith(b"\n") and ended(line[:-1])
    assert not ended(b"x" + line[1:-1]) and not ended(LINE)
