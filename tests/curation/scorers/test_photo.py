"""Statistics of a photograph, against what damages it."""

from __future__ import annotations

import numpy as np
import pytest

from curation.scorers import load
from curation.scorers.photo import blocks, seams
from flywheel.core.scorer import Item
from flywheel.demo.photographs import photograph
from flywheel.signals.nulls import DAMAGES, damaged, encode

FLOWER = photograph("sklearn", "datasets/images/flower.jpg").resize((256, 256))


def measured(picture: bytes) -> dict[str, float]:
    (row,) = load("photo").score([Item(picture)])
    assert isinstance(row, dict)
    return row


@pytest.mark.parametrize("side", [64, 256])
def test_each_damage_moves_its_statistic(side: int):
    own = encode(FLOWER.resize((side, side)))
    sound, damage = measured(own), {n: measured(damaged(n, own)) for n in DAMAGES}
    assert damage["tile_shuffle"]["seams"] > 2.5 > sound["seams"]
    assert damage["jpeg"]["blocks"] > 2 > sound["blocks"]
    assert damage["blur"]["roughness"] < 0.05 < sound["roughness"] < 6 < damage["noise"]["roughness"]
    assert damage["flat"] == {**dict.fromkeys(damage["flat"], 0.0), "blocks": 1.0} and sound["entropy"] > 1


def test_pictures_too_small_for_a_grid_have_none():
    tiny = np.zeros((9, 9), np.uint8)
    assert (seams(tiny), blocks(tiny)) == (0.0, 1.0)


def test_a_broken_picture_fails_alone():
    rows = load("photo").score([Item(b"no picture"), Item(encode(FLOWER))])
    assert isinstance(rows[0], Exception) and isinstance(rows[1], dict)
