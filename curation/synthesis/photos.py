"""Edit pairs made from any photograph by a known operation, both ways: tone, brightness, gray, restoration."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image, ImageEnhance, ImageFilter

from curation.synthesis.palette import encode
from curation.synthesis.sample import Sample
from flywheel.scorer import decode

MAX_SIDE = 1024  # pixels: pairs are made at most this large


@dataclass(frozen=True)
class Operation:
    """What is done to the picture, what it looks like then, how to ask for it, and how to ask for its undoing."""

    name: str
    result: str
    apply: Callable[[Image.Image], Image.Image]
    forward: tuple[str, ...]
    backward: tuple[str, ...]


def warm(image: Image.Image) -> Image.Image:
    """More red, less blue."""
    return _gains(image, 1.12, 1.0, 0.82)


def cool(image: Image.Image) -> Image.Image:
    """More blue, less red."""
    return _gains(image, 0.84, 1.0, 1.12)


def darken(image: Image.Image) -> Image.Image:
    """55 % of the brightness."""
    return ImageEnhance.Brightness(image).enhance(0.55)


def gray(image: Image.Image) -> Image.Image:
    """Lightness only."""
    return image.convert("L").convert("RGB")


def blur(image: Image.Image) -> Image.Image:
    """Gaussian blur of 5 % of the short side."""
    return image.filter(ImageFilter.GaussianBlur(min(image.size) * 0.05))


def _gains(image: Image.Image, red: float, green: float, blue: float) -> Image.Image:
    bands = [band.point(lambda v, g=g: min(255, round(v * g))) for band, g in zip(image.split(), (red, green, blue))]
    return Image.merge("RGB", bands)


OPERATIONS = (
    Operation(
        "warm",
        "in a warm tone",
        warm,
        ("give the photo a warmer tone", "make the picture warmer"),
        ("take the warm tint out of the photo",),
    ),
    Operation(
        "cool",
        "in a cool tone",
        cool,
        ("give the photo a cooler tone", "make the picture cooler"),
        ("take the blue tint out of the photo",),
    ),
    Operation(
        "darken",
        "underexposed",
        darken,
        ("make the photo darker",),
        ("brighten the dark photo", "make the photo brighter"),
    ),
    Operation(
        "gray",
        "in black and white",
        gray,
        ("turn the photo black and white",),
        ("colourise the black and white photo",),
    ),
    Operation(
        "blur",
        "out of focus",
        blur,
        ("blur the photo",),
        ("sharpen the blurred photo", "restore the blurred photo"),
    ),
)


def photo_edits(image: bytes, *, seed: str) -> Iterator[Sample]:
    """Each operation and its inverse on an encoded picture, as ti2i samples. Errors: `BadImage`.

    Equal bytes and seed give equal samples; what has to survive the edit is its entry check.
    """
    before = decode(image)
    before.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    rng = random.Random(seed)
    plain = encode(before)
    for op in OPERATIONS:
        edited = encode(op.apply(before))
        checks = ({"verifier": "identity", "capability": "editing", "min": 0.7},)
        yield Sample(edited, rng.choice(op.forward), "ti2i", (plain,), checks, f"photo-{op.name}")
        yield Sample(plain, rng.choice(op.backward), "ti2i", (edited,), checks, f"photo-{op.name}-inverse")
