"""Landmarks and sketches: small, and the same for copies."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from curation.scorers.copies import Copies, flat, frame
from flywheel.core.image import BadImage
from flywheel.core.scorer import Item
from tests.curation.copied import scene, sketch, slide
from tests.curation.corpus import encoded, texture


def test_columns_are_small_and_a_broken_picture_costs_itself() -> None:
    good, broken = Copies().score([Item(encoded(scene(1))), Item(encoded(scene(1))[:900])])
    assert isinstance(good, dict) and isinstance(broken, BadImage)
    assert len(good["hashes"]) == 32 * 8 and len(good["places"]) == 32 * 5 * 2 and len(good["sketch"]) < 20_000
    assert Copies().score([Item(encoded(scene(1)))]) == [good]


def test_a_mirrored_picture_has_the_same_hashes() -> None:
    plain, mirrored = sketch(scene(2)), sketch(ImageOps.mirror(scene(2)))
    nearest = np.bitwise_count(plain.hashes[:, None] ^ mirrored.hashes[None]).min(axis=1)
    assert (nearest <= 8).mean() > 0.8
    other = np.bitwise_count(plain.hashes[:, None] ^ sketch(scene(3)).hashes[None]).min(axis=1)
    assert (other <= 8).sum() == 0


def test_a_frame_is_cut_off_unless_it_is_most_of_the_picture() -> None:
    framed = np.asarray(ImageOps.expand(scene(4), 60, (250, 250, 250)).convert("L"))
    assert frame(framed) == (61, 60 + 480 - 1, 61, 60 + 640 - 1)
    small = np.asarray(ImageOps.expand(scene(4, 160, 120), 200, (250, 250, 250)).convert("L"))
    assert frame(small) == (0, small.shape[0], 0, small.shape[1])
    page = np.asarray(slide(["One", "two"]).convert("L"))
    assert frame(page) == (0, page.shape[0], 0, page.shape[1])
    blank = np.full((40, 50), 7, np.uint8)
    assert frame(blank) == (0, 40, 0, 50)


def test_flat_pictures_are_sketched_finer() -> None:
    rough = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize((640, 480))
    text = slide(["Nine o'clock"])
    assert flat(np.asarray(text.convert("L"))) > 0.5 > 0.1 > flat(np.asarray(rough.convert("L")))
    assert sketch(text).side > 300 > 192 == sketch(rough).side


def test_pictures_without_a_corner() -> None:
    found = sketch(Image.new("RGB", (300, 200), (200, 30, 30)))
    assert not len(found.hashes) and found.rgb.shape[2] == 3
    assert not len(sketch(Image.new("RGB", (8, 8))).hashes)


def test_a_picture_of_a_few_pixels_is_a_picture() -> None:
    """A counting pixel, or a line between paragraphs: the filters of size decide on it."""
    for size in ((1, 1), (2, 300), (5000, 1), (7, 5000)):
        assert not len(sketch(texture(1, *size)).hashes)
