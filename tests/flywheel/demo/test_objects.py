"""The detector of shapes on cards drawn for the case."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from flywheel.core.image import decode_working
from flywheel.demo.cards import ShapeGroup, draw_group
from flywheel.demo.meaning import SHAPES
from flywheel.demo.objects import Component, color_name, detect, to_lab
from flywheel.demo.palette import INKS
from flywheel.demo.verifiers import nearest_anchor
from flywheel.demo.word_cards import Word, draw_word
from tests.flywheel.demo.drawn import blurred, singles


def test_detector_reads_shape_colour_place_and_background_of_clean_cards():
    for card, image in singles(60):
        background, components = detect(decode_working(image))
        assert background == card.background
        readings = [(c.shape, c.color, nearest_anchor(c.x, c.y)) for c in components]
        assert readings == [(card.shape, card.color, card.position)]


def test_detector_survives_blur_and_noise():
    hits = 0
    for i, (card, image) in enumerate(singles(80, seed=1)):
        _, components = detect(blurred(image, sigma=1.2, noise=8, seed=i))
        hits += [(c.shape, c.color) for c in components] == [(card.shape, card.color)]
    assert hits >= 76


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_detector_counts_copies(shape, number):
    image = draw_group(ShapeGroup(shape, "green", number, "pink"), random.Random(0))
    _, components = detect(blurred(image, sigma=0.8))
    assert [c.shape for c in components] == [shape] * number


def test_detector_sees_the_position_and_area_it_was_given():
    canvas = Image.new("RGB", (200, 100), "white")
    ImageDraw.Draw(canvas).rectangle((20, 30, 59, 69), fill=(32, 92, 200))
    _, components = detect(np.asarray(canvas))
    assert len(components) == 1 and isinstance(components[0], Component)
    assert (components[0].shape, components[0].color) == ("square", "blue")
    assert components[0].x == pytest.approx(0.2, abs=0.01) and components[0].y == pytest.approx(0.5, abs=0.02)
    assert components[0].area == pytest.approx(0.08, rel=0.1)


def test_detector_finds_nothing_in_noise_blank_and_photograph():
    rng = np.random.default_rng(0)
    assert detect(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) == (None, [])
    assert detect(np.full((64, 64, 3), 200, np.uint8))[1] == []
    ramp = np.linspace(0, 255, 128)[None, :, None] + rng.normal(0, 12, (128, 128, 3))
    assert not [c for c in detect(np.clip(ramp, 0, 255).astype(np.uint8))[1] if c.shape != "other"]


def test_letters_are_not_shapes():
    _, components = detect(decode_working(draw_word(Word("FISH", "red", "white"), random.Random(0))))
    assert components and {c.shape for c in components} == {"other"}


@pytest.mark.parametrize("name", INKS)
def test_colour_names_cover_lighter_and_darker_tones(name):
    for gain in (0.9, 1.0, 1.08):
        rgb = np.clip(np.array(INKS[name]) * gain, 0, 255)
        assert color_name(to_lab(rgb[None, None])[0, 0]) == name
