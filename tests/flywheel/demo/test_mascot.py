"""The mascot stands where the scene says, and stays the same bear."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from flywheel.demo.mascot import SIDES, Scene, draw_scene, scene_caption


def fur(data: bytes) -> np.ndarray:
    """Pixels of the bear's brown fur."""
    rgb = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16)
    return np.abs(rgb - (150, 92, 48)).max(axis=2) < 12


@pytest.mark.parametrize("side", SIDES)
def test_the_mascot_is_on_its_side(side: str) -> None:
    brown = fur(draw_scene(Scene("star", "red", side, "white"), random.Random(0)))
    left, right = np.array_split(brown, 2, axis=1)
    assert brown.mean() > 0.02
    assert (left.sum() > 0, right.sum() > 0) == (side == "left", side == "right")


def test_another_shape_leaves_the_mascot_as_it_is() -> None:
    one, other = (draw_scene(Scene("star", color, "left", "pink"), random.Random(7)) for color in ("red", "blue"))
    assert one != other and np.array_equal(fur(one), fur(other))


def test_a_caption_names_both_and_their_sides() -> None:
    for n in range(10):
        text = scene_caption(Scene("circle", "orange", "right", "yellow"), random.Random(n))
        assert "mascot" in text and "orange circle" in text and "left" in text and "right" in text
