"""Folders of pictures from elsewhere: by seed, by any of the names, and what in them is not understood."""

from __future__ import annotations

from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from flywheel.signals.drawn_elsewhere import Drawn, seed_ranges
from flywheel.signals.suite import Prompt

CAT = Prompt("cat", "a cat", "t2i", (), ())
ODD = Prompt("a/b?", "odd", "t2i", (), ())  # an id that is no file name


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"any")
    return path


def test_seeds_are_read_from_the_names_of_folders(tmp_path: Path):
    first, third = picture(tmp_path / "cat.jpg"), picture(tmp_path / "seed-3" / "cat.png")
    second, better = picture(tmp_path / "12" / "cat.webp"), picture(tmp_path / "enhanced-0" / "cat.png")
    drawn = Drawn.of(tmp_path)
    assert drawn.pictures(CAT) == {0: first, 3: third, 12: second} and drawn.rewritten(CAT) == {0: better}
    assert drawn.unknown([CAT]) == [] and drawn.unknown([ODD]) == ["cat.jpg", "cat.png", "cat.webp"]
    assert drawn.pictures(ODD) == {}


def test_two_folders_of_one_seed_and_folders_without_pictures_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="is not a folder"):
        Drawn.of(tmp_path / "nothing")
    picture(tmp_path / "enhanced-0" / "cat.png")
    with pytest.raises(UsageError, match="has no pictures"):
        Drawn.of(tmp_path)
    picture(tmp_path / "1" / "cat.png")
    assert list(Drawn.of(tmp_path).seeds) == [1]
    picture(tmp_path / "seed-01" / "cat.png")
    with pytest.raises(UsageError, match="both hold seed"):
        Drawn.of(tmp_path)


def test_ranges_of_seeds():
    assert seed_ranges([3, 1, 2, 7, 9, 8, 5]) == "1–3, 5, 7–9" and seed_ranges([4]) == "4"
