"""Edges and coherence of blank sheets, noise, drawings and pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from flywheel.core.scorer import Item
from tests.curation.corpus import encoded
from tests.curation.scorers.examples import row_of, scene


def sheet(deviation: float) -> Image.Image:
    """A grey sheet with normal noise."""
    noise = np.random.default_rng(1).normal(150, deviation, (480, 640, 1))
    return Image.fromarray(np.clip(noise.repeat(3, axis=2), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("deviation", [0, 1, 4])
def test_a_sheet_with_grain_has_no_edge(deviation: float) -> None:
    assert row_of("structure", Item(encoded(sheet(deviation))))["edges"] <= 9


@pytest.mark.parametrize("ink", ["black", (205, 195, 190), (255, 255, 0)])
def test_one_thin_line_is_an_edge(ink: object) -> None:
    page = Image.new("RGB", (1024, 768), "white")
    ImageDraw.Draw(page).line([100, 100, 900, 650], fill=ink, width=2)
    assert row_of("structure", Item(encoded(page)))["edges"] >= 15


@pytest.mark.parametrize("deviation", [15, 60])
def test_noise_averages_out_and_pictures_do_not(deviation: float) -> None:
    noisy, sound = (row_of("structure", Item(encoded(p)))["coherence"] for p in (sheet(deviation), scene(3)))
    assert noisy < 0.05 and (sound is None or sound > 0.4)


def test_noise_in_a_drawing_is_not_judged() -> None:
    page = Image.new("RGB", (512, 512), "white")
    page.paste(sheet(60).crop((0, 0, 200, 200)), (100, 100))
    assert row_of("structure", Item(encoded(page)))["coherence"] is None
    assert row_of("structure", Item(encoded(Image.new("RGB", (4, 4)))))["coherence"] is None
