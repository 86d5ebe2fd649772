"""An edit is judged by both halves: the asked change is there, by its amount, and the rest is as it was."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from curation.scorers import load
from curation.scorers.change import asked, changes
from curation.synthesis.photos import OPERATIONS, RESTORATIONS, STYLES, Operation
from curation.verify.checks import verify
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded
from tests.curation.scorers.examples import scene
from tests.curation.synthesis.conftest import photographs  # noqa: F401 - a fixture

FAST = [op for op in (*OPERATIONS, *RESTORATIONS, *STYLES) if op.name != "oil"]
SIDE = 256


@pytest.fixture(scope="module")
def pictures(photographs: tuple[bytes, bytes]) -> tuple[Image.Image, Image.Image]:  # noqa: F811
    a, b = (Image.open(io.BytesIO(p)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX) for p in photographs)
    return a, b


def passes(reference: Image.Image, result: Image.Image, ranges: dict[str, list[float]]) -> bool | None:
    check = {"verifier": "change", "capability": "editing", "ranges": ranges}
    ((outcome,),) = verify([Item(encoded(result), references=(encoded(reference),))], [[check]])
    return outcome.passed


def shuffled(image: Image.Image) -> Image.Image:
    side = SIDE // 4
    boxes = [(x, y, x + side, y + side) for y in range(0, SIDE, side) for x in range(0, SIDE, side)]
    out, order = image.copy(), random.Random(0).sample(boxes, len(boxes))
    for box, other in zip(boxes, order):
        out.paste(image.crop(other), box[:2])
    return out


def compressed(image: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(out).convert("RGB")


def flat(image: Image.Image) -> Image.Image:
    return image.resize((1, 1), Image.Resampling.BOX).resize(image.size)


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("operation", FAST, ids=lambda op: op.name)
def test_the_edit_passes_and_every_null_fails(
    operation: Operation, inverse: bool, pictures: tuple[Image.Image, Image.Image]
) -> None:
    photo, other = pictures
    pairs = [(p, operation.apply(p)) for p in pictures]
    (reference, result), (_, foreign) = [p[::-1] for p in pairs] if inverse else pairs
    ranges = asked(np.asarray(reference), np.asarray(result))
    assert ranges and passes(reference, result, ranges)
    nulls = {"unedited": reference, "another pair": foreign, "shuffled": shuffled(result), "flat": flat(result)}
    if operation.name != "blur" or inverse:  # a blurred picture stays one
        nulls["blurred"] = result.filter(ImageFilter.GaussianBlur(SIDE * 0.05))
    if operation.name not in ("compress", "watercolour") or inverse:
        nulls["compressed"] = compressed(result, 10)
    assert [name for name, null in nulls.items() if passes(reference, null, ranges)] == []


def test_a_weaker_softer_edit_that_was_encoded_again_still_passes(pictures: tuple[Image.Image, Image.Image]) -> None:
    photo = pictures[0]
    warm = OPERATIONS[0].apply(photo)
    ranges = asked(np.asarray(photo), np.asarray(warm))
    assert ranges
    soft = warm.resize((180, 180), Image.Resampling.BICUBIC).resize(photo.size, Image.Resampling.BICUBIC)
    for result in (Image.blend(photo, warm, 0.7), soft, compressed(warm, 90)):
        assert passes(photo, result, ranges)
    assert not passes(photo, OPERATIONS[1].apply(photo), ranges), "cooler is the other direction"
    assert not passes(photo, OPERATIONS[0].apply(OPERATIONS[0].apply(warm)), ranges), "three times the amount"


def test_a_part_from_another_picture_fails(pictures: tuple[Image.Image, Image.Image]) -> None:
    photo, other = pictures
    dark = OPERATIONS[2].apply(photo)
    ranges = asked(np.asarray(photo), np.asarray(dark))
    assert ranges
    dark.paste(other.crop((64, 64, 192, 192)), (64, 64))
    assert not passes(photo, dark, ranges)


def test_an_edit_that_changes_nothing_has_no_ranges() -> None:
    gray = np.asarray(scene(1, 128).convert("L").convert("RGB"))
    assert asked(gray, gray) is None


def test_sizes_do_not_matter_and_without_a_reference_nothing_is_measured() -> None:
    large = np.asarray(scene(2, 512))
    small = np.asarray(scene(2, 512).resize((256, 256), Image.Resampling.BOX))
    measured = changes(large, small)
    assert measured["layout"] > 0.99 and measured["likeness"] > 0.99 and abs(measured["detail"]) < 0.1
    assert set(load("change").score([Item(encoded(scene(2, 64)))])[0].values()) == {None}
