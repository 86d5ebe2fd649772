"""An item decodes once for all scorers; a failure costs its own row."""

from __future__ import annotations

import numpy as np
import pytest

from flywheel.core.errors import UsageError
from flywheel.core.image import VERSION, WORKING_SIDE, BadImage, decode_working
from flywheel.core.scorer import Item, Resources, full_version, per_item, resources_of
from tests.curation.corpus import encoded, texture, turned


def test_every_form_is_decoded_once_and_upright() -> None:
    item = Item(turned(texture(1, 120, 80), 6))
    assert item.pixels is item.pixels and item.upright is item.upright and item.header is item.header
    assert item.pixels.shape == (120, 80, 3) and item.upright.size == (80, 120) and item.header.size == (120, 80)


def test_pixels_have_a_bounded_side_and_others_may_ask_for_less() -> None:
    item = Item(encoded(texture(2, 4 * WORKING_SIDE, 64), "JPEG"))
    assert item.pixels.shape == (16, WORKING_SIDE, 3)
    assert item.at_least(100).shape[1] < 4 * WORKING_SIDE and item.at_least(100).shape[1] >= 100


def test_a_failure_costs_its_own_row() -> None:
    rows = per_item([Item(encoded(texture(3))), Item(b"no picture")], lambda item: {"width": item.pixels.shape[1]})
    assert rows[0] == {"width": 160} and isinstance(rows[1], BadImage)


def test_a_score_depends_on_the_scorer_and_on_the_decode() -> None:
    class Mine:
        name, version, fields = "mine", "3", ()

    assert full_version(Mine()) == f"3+{VERSION}"


def test_items_are_equal_by_what_they_show() -> None:
    assert Item(b"a", "b", references=(b"c",)) == Item(b"a", "b", references=(b"c",)) != Item(b"a", "b")
    with pytest.raises(AttributeError):
        Item(b"a").image = b"b"


def test_a_scorer_says_what_it_needs() -> None:
    class Large:
        resources = Resources(cpus=0.5, gpus=0.25, memory=2**30, batch=64)

    class Odd:
        resources = {"gpus": 1}

    assert resources_of(Large()) == resources_of(Large) == Large.resources and resources_of(object()) == Resources()
    with pytest.raises(UsageError, match=r"give a flywheel.core.scorer.Resources"):
        resources_of(Odd())
    for wrong in ({"cpus": 0}, {"gpus": -1}, {"memory": -1}, {"batch": 0}):
        with pytest.raises(ValueError, match="cpus must be above 0"):
            Resources(**wrong)


@pytest.mark.parametrize("size", [(300, 200), (700, 500), (1023, 400), (1300, 900)])
def test_pixels_are_the_same_whether_all_of_a_jpeg_is_decoded_for_others(size: tuple[int, int]) -> None:
    data = turned(texture(1, *size), 6)
    item = Item(data)
    assert item.upright.size == size[::-1]
    assert np.array_equal(item.pixels, decode_working(data)) and max(item.pixels.shape) == min(512, max(size))
