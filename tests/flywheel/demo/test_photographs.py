"""Photographs from installed packages."""

from __future__ import annotations

import pytest

from flywheel.core.errors import UsageError
from flywheel.demo.photographs import SIDES, SOURCES, crops, photograph


def test_crops_are_a_function_of_the_seed() -> None:
    def drawn(seed: str) -> list[tuple[bytes, str]]:
        return [(crop.tobytes(), caption) for crop, caption in crops(6, seed=seed)]

    assert drawn("a") == drawn("a") != drawn("b")
    assert len({data for data, _ in drawn("a")}) == 6


def test_crops_show_each_photograph_in_turn_at_a_permitted_size() -> None:
    for number, (crop, caption) in enumerate(crops(6, seed="a")):
        assert SOURCES[number % len(SOURCES)][2] in caption
        assert crop.mode == "RGB" and max(crop.size) <= max(SIDES)


def test_a_photograph_that_is_not_installed_is_named() -> None:
    with pytest.raises(UsageError, match="nowhere.jpg is not in the installed package 'sklearn'"):
        photograph("sklearn", "nowhere.jpg")
    with pytest.raises(UsageError, match="no_such_package"):
        photograph("no_such_package", "a.jpg")
