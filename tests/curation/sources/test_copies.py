"""Temporary copies."""

from __future__ import annotations

from pathlib import Path

from curation.sources.copies import spooled
from curation.sources.files import File


def test_copies_are_made_once_and_few_are_kept(tmp_path: Path) -> None:
    made: list[str] = []

    def write(place: Path) -> None:
        made.append(place.name)
        place.write_bytes(b"x")

    one = spooled(File("u1", "", 1, 1).version, "copy", write)
    assert spooled(File("u1", "", 1, 1).version, "copy", write) == one and len(made) == 1
    assert spooled(File("u1", "", 1, 2).version, "copy", write) != one  # another version
    spooled(File("u2", "", 1, 1).version, "copy", write)
    assert len(made) == 3 and len(list(one.parent.iterdir())) == 2 and not one.exists()
