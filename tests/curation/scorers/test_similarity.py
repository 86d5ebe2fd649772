"""Agreement of edits with their reference."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from curation.scorers.similarity import identity, unchanged
from curation.synthesis.photos import OPERATIONS
from flywheel.core.image import decode_working
from flywheel.core.scorer import Item
from flywheel.demo.cards import Single, draw_single
from flywheel.demo.mascot import Scene, draw_scene
from flywheel.demo.palette import BACKGROUNDS
from tests.curation.corpus import encoded
from tests.curation.scorers.examples import row_of, scene
from tests.flywheel.demo.drawn import blurred


def edited(before: Image.Image, after: Image.Image) -> dict:
    return row_of("similarity", Item(encoded(after), "x", "ti2i", (encoded(before),)))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
def test_faint_edits_change_more_than_encoding_again(operation: object) -> None:
    before = scene(7, 300)
    plain = encoded(before)
    edited = row_of("similarity", Item(encoded(operation.apply(before)), "x", "ti2i", (plain,)))
    again = row_of("similarity", Item(encoded(before, "JPEG", quality=85), "x", "ti2i", (plain,)))
    assert edited["largest_change"] > 4.5 > again["largest_change"]
    assert row_of("similarity", Item(plain, "x", "ti2i", (plain,)))["largest_change"] == 0
    assert row_of("similarity", Item(plain))["largest_change"] is None


def test_a_tint_of_the_whole_picture_is_a_shift_of_color_and_an_edit_of_a_part_is_none() -> None:
    before = scene(7, 256)
    warm = Image.fromarray(np.clip(np.asarray(before) * (1.15, 1.0, 0.8), 0, 255).astype(np.uint8))
    part = before.copy()
    part.paste((255, 0, 0), (0, 0, 128, 192))
    assert edited(before, warm)["color_shift"] > 5
    assert edited(before, part)["color_shift"] == 0
    several = Item(encoded(before), "x", "ti2i", (encoded(before), encoded(part)))
    assert row_of("similarity", several)["color_shift"] is None


def test_an_edit_is_related_to_its_reference_and_another_picture_is_not() -> None:
    before, other = scene(8, 320), scene(9, 320)
    other_background = other.copy()
    other_background.paste(before.crop((80, 60, 240, 300)), (80, 60))
    larger = other.resize((400, 400))
    larger.paste(before, (40, 40))
    for after in (before.convert("L").convert("RGB"), ImageOps.posterize(before, 2), other_background, larger):
        assert edited(before, after)["related"] > 0.6
    assert edited(before, other)["related"] < 0.55
    assert edited(Image.new("RGB", (99, 99), "red"), before)["related"] is None  # no edges: nothing to agree in
    several = Item(encoded(before), "x", "ti2i", (encoded(other), encoded(before)))
    assert row_of("similarity", several)["related"] > 0.6, "the one that agrees most"
    strangers = Item(encoded(before), "x", "ti2i", (encoded(other), encoded(scene(10, 320))))
    assert row_of("similarity", strangers)["related"] < 0.55


def test_a_result_that_is_one_of_its_references_has_not_changed() -> None:
    before, other = scene(8, 320), scene(9, 320)
    for references in ((before, other), (other, before)):
        item = Item(encoded(before, "JPEG", quality=85), "x", "ti2i", tuple(map(encoded, references)))
        assert row_of("similarity", item)["largest_change"] < 4.5


def test_change_of_aspect() -> None:
    before = scene(8, 320)
    assert edited(before, before.resize((640, 640)))["aspect_change"] == 0
    assert edited(before, before.crop((0, 0, 320, 160)))["aspect_change"] == pytest.approx(np.log(2))


def test_identity_tells_the_mascot_from_its_absence():
    scene = Scene("star", "red", "left", "yellow")
    reference = decode_working(draw_scene(scene, random.Random(0)))
    recoloured = draw_scene(Scene("star", "blue", "left", "yellow"), random.Random(0))
    gone = draw_single(Single("star", "blue", "right", "yellow"), random.Random(0))
    disc = Image.new("RGB", (64, 64), BACKGROUNDS["yellow"])
    ImageDraw.Draw(disc).ellipse((5, 20, 29, 44), fill=(150, 92, 48))
    assert identity(reference, decode_working(recoloured)) > 0.97
    assert identity(reference, blurred(recoloured, sigma=1.2)) > 0.85
    assert identity(reference, decode_working(gone)) < 0.6
    assert identity(reference, np.asarray(disc)) < 0.7


def test_unchanged_ignores_the_edit_and_sees_the_rest():
    card = Single("circle", "red", "left", "white")
    reference = decode_working(draw_single(card, random.Random(3)))
    edited = decode_working(draw_single(Single("circle", "blue", "left", "white"), random.Random(3)))
    similar, area = unchanged(reference, edited)
    assert similar > 0.95 and 0.05 < area < 0.3
    noise = np.random.default_rng(0).integers(0, 256, reference.shape, dtype=np.uint8)
    assert unchanged(reference, noise)[1] > 0.8
