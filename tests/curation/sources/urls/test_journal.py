"""The journal of an unfinished part."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.sources.urls import FAILED, FETCHED, Outcome
from curation.sources.urls.journal import Journal

PICTURE = Outcome(FETCHED, "", 200, 2, "http://h/a", "image/png", ("noai",), b"picture" * 1000)
FAILURE = Outcome(FAILED, "status 404", 404, 1)


def test_answers_come_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "deep" / "j")
    journal.add("http://h/a", PICTURE)
    journal.add("http://h/\u00e9", FAILURE)
    journal.close()
    again = Journal(tmp_path / "deep" / "j")
    assert again.read("http://h/a") == PICTURE and again.read("http://h/\u00e9") == FAILURE
    assert list(again.places) == ["http://h/a", "http://h/\u00e9"]
    with pytest.raises(KeyError):
        again.read("http://h/none")


@pytest.mark.parametrize("lost", [1, 50, 6000, 7015])
def test_a_record_that_was_cut_off_is_dropped_and_overwritten(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    journal.add("first", FAILURE)
    whole = path.stat().st_size
    journal.add("second", PICTURE)
    journal.close()
    path.write_bytes(path.read_bytes()[:-lost])
    journal = Journal(path)
    assert list(journal.places) == ["first"] and path.stat().st_size == whole
    journal.add("third", PICTURE)
    journal.close()
    assert list(Journal(path).places) == ["first", "third"] and Journal(path).read("third") == PICTURE


def test_a_damaged_record_ends_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    journal.add("first", FAILURE)
    whole = path.stat().st_size
    journal.add("second", PICTURE)
    journal.close()
    data = bytearray(path.read_bytes())
    data[whole + 500] ^= 1
    path.write_bytes(data)
    assert list(Journal(path).places) == ["first"]
