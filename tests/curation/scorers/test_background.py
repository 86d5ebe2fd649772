"""The colour of a plain background."""

from __future__ import annotations

import numpy as np
import pytest

from curation.scorers.background import background_of, to_lab


def card(color: tuple[int, int, int], side: int = 64) -> np.ndarray:
    """uint8 pixels of a card with a black square in its middle."""
    pixels = np.full((side, side, 3), color, np.uint8)
    pixels[16:48, 16:48] = 0
    return pixels


def test_lab_of_known_colours() -> None:
    white, black, red = to_lab(np.array([[[255] * 3, [0] * 3, [255, 0, 0]]], np.uint8))[0]
    assert white == pytest.approx([100, 0, 0], abs=0.1) and black == pytest.approx([0, 0, 0], abs=0.1)
    assert red == pytest.approx([53.2, 80.1, 67.2], abs=0.5)


@pytest.mark.parametrize("color", [(250, 250, 248), (253, 236, 150), (20, 40, 90)])
def test_a_plain_border_gives_its_colour_whatever_is_inside(color: tuple[int, int, int]) -> None:
    noisy = np.clip(card(color) + np.random.default_rng(0).normal(0, 3, (64, 64, 3)), 0, 255).astype(np.uint8)
    found = background_of(to_lab(noisy))
    assert found is not None and np.linalg.norm(found - to_lab(np.array([[color]], np.uint8))[0, 0]) < 3


def test_a_border_of_several_colours_is_no_plain_background() -> None:
    pixels = card((250, 250, 248))
    pixels[:, ::2] = (200, 30, 30)
    assert background_of(to_lab(pixels)) is None
    assert background_of(to_lab(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))) is None
