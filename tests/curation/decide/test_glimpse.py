"""A glimpse proposes how pictures lie on each other, and shows whether they are alike there."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from curation.decide.agreement import may_agree
from curation.decide.glimpse import Glimpse, alike, proposed, shown, stretched
from curation.scorers.copies import Copies
from flywheel.core.scorer import Item
from tests.curation.copied import COPIES, again, scene
from tests.curation.corpus import encoded


def _glimpse(image: Image.Image) -> Glimpse:
    (row,) = Copies().score([Item(encoded(image))])
    assert isinstance(row, dict)
    return Glimpse.of(**row)


def _joined(seeds: tuple[int, int, int, int]) -> Image.Image:
    """Four scenes in a square."""
    cells = [np.asarray(scene(seed)) for seed in seeds]
    return Image.fromarray(np.concatenate([np.concatenate(cells[:2], 1), np.concatenate(cells[2:], 1)], 0))


@pytest.mark.parametrize("kind", COPIES)
def test_copies_may_agree(kind: str) -> None:
    for seed in range(4):
        assert may_agree(_glimpse(scene(seed)), _glimpse(again(COPIES[kind](scene(seed))))), seed


@pytest.mark.parametrize("seed", [1, 2])
def test_cropped_panoramas_may_agree(seed: int) -> None:
    """Where what a landmark may be off is a third of the height."""
    whole = scene(seed, 1800, 300)
    part = whole.crop((180, 30, whole.width, whole.height))
    assert may_agree(_glimpse(whole), _glimpse(again(part)))


def test_pictures_of_which_three_fifths_are_left_may_agree() -> None:
    """Nearly all: landmarks say only about how much is left."""
    found = 0
    for seed in range(20):
        whole = scene(seed)
        first, second = _glimpse(whole), _glimpse(whole.crop((round(whole.width * 0.4), 0, whole.width, whole.height)))
        assert may_agree(first, second) == may_agree(second, first)
        found += may_agree(first, second)
    assert found >= 17


def test_pictures_that_share_a_part_may_not() -> None:
    first, second = _glimpse(_joined((1, 2, 3, 4))), _glimpse(_joined((1, 5, 6, 7)))
    proposal = proposed(first, second)
    assert proposal is not None and proposal.agreeing >= 4 and shown(first, second, proposal.map) > 0.9
    assert alike(first, second, proposal.map) < 0.1 and not may_agree(first, second)
    whole = _glimpse(scene(1))
    proposal = proposed(whole, first)
    assert proposal is not None and shown(whole, first, proposal.map) < 0.4 and not may_agree(whole, first)


def test_how_much_of_either_picture_the_other_shows() -> None:
    first = _glimpse(scene(2))
    height, width = first.height, first.width
    assert shown(first, first, np.array([[1.0, 0, 0], [0, 1, 0]])) == pytest.approx(1)
    assert shown(first, first, np.array([[-1.0, 0, width], [0, 1, 0]])) == pytest.approx(1)  # mirrored
    assert shown(first, first, np.array([[1.0, 0, width / 2], [0, 1, 0]])) == pytest.approx(0.5)
    assert shown(first, first, np.array([[0.5, 0, 0], [0, 0.5, height / 4]])) == pytest.approx(0.25)  # all, in a corner
    assert shown(first, first, np.array([[1.0, 0, 2 * width], [0, 1, 0]])) == 0


@pytest.mark.parametrize("size", [(1200, 60), (60, 1200), (64, 64), (3, 3)])
def test_pictures_of_any_size_are_alike_themselves(size: tuple[int, int]) -> None:
    tones = np.random.default_rng(0).integers(0, 256, (size[1], size[0]), np.uint8)
    image = _glimpse(Image.fromarray(tones).convert("RGB"))
    assert alike(image, image, stretched(image, image)) > 0.99


def test_pictures_beside_each_other_are_not_alike() -> None:
    first = _glimpse(scene(2))
    assert alike(first, first, np.array([[1.0, 0, 3 * first.width], [0, 1, 0]])) == 0
