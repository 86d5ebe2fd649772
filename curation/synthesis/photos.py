"""Make edit pairs, each with its inverse, by an operation on a whole photograph: tone, restoration, style."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from curation.synthesis.canvas import encode
from curation.synthesis.sample import Sample
from flywheel.core.image import decode, decode_working

MAX_SIDE = 1024  # pixels: longest side of a pair's pictures
_REAL = ("turn the picture into a photograph",)


@dataclass(frozen=True)
class Operation:
    """An operation, a description of its result, and instructions for it (`forward`) and its inverse (`backward`).

    Suites ask in the words of the first instructions (`as_asked`); remedies use those that their suite does not.
    """

    name: str
    result: str
    apply: Callable[[Image.Image], Image.Image]
    forward: tuple[str, ...]
    backward: tuple[str, ...]

    @property
    def as_asked(self) -> Operation:
        """The operation in the words of suites alone."""
        return replace(self, forward=self.forward[:1], backward=self.backward[:1])


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
        ("take the warm tint out of the photo", "make the colours of the photo less warm"),
    ),
    Operation(
        "cool",
        "in a cool tone",
        cool,
        ("give the photo a cooler tone", "make the picture cooler"),
        ("take the blue tint out of the photo", "make the colours of the photo less cold"),
    ),
    Operation(
        "darken",
        "underexposed",
        darken,
        ("make the photo darker", "lower the brightness a lot"),
        ("brighten the dark photo", "make the photo brighter"),
    ),
    Operation(
        "gray",
        "in black and white",
        gray,
        ("turn the photo black and white", "remove all colour from the picture"),
        ("colourise the black and white photo", "add natural colours to this monochrome picture"),
    ),
    Operation(
        "blur",
        "out of focus",
        blur,
        ("blur the photo", "put the whole picture out of focus"),
        ("sharpen the blurred photo", "restore the blurred photo"),
    ),
)


def noise(image: Image.Image) -> Image.Image:
    """Gaussian noise, σ = 28 of 255."""
    pixels = np.asarray(image, np.float32)
    grain = np.random.default_rng(0).normal(0, 28, pixels.shape)
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def compress(image: Image.Image) -> Image.Image:
    """JPEG compression at quality 8."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=8)
    return Image.open(out).convert("RGB")


def reduce(image: Image.Image) -> Image.Image:
    """Reduced to a fifth of the resolution and enlarged again."""
    small = image.resize((max(1, image.width // 5), max(1, image.height // 5)), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def fade(image: Image.Image) -> Image.Image:
    """An old print: little contrast and colour, yellow."""
    pale = ImageEnhance.Color(ImageEnhance.Contrast(image).enhance(0.5)).enhance(0.35)
    return _gains(pale, 1.06, 1.0, 0.78)


def charcoal(image: Image.Image) -> Image.Image:
    """Dark lines and shades on white paper."""
    gray = image.convert("L")
    soft = np.asarray(gray.filter(ImageFilter.GaussianBlur(max(image.size) / 60)), np.float32)
    shades = np.asarray(gray, np.float32)
    lines = np.clip(shades * 255 / np.maximum(1, soft), 0, 255)  # dodge: flat areas become paper
    return Image.fromarray((0.4 * lines + 0.6 * shades).astype(np.uint8)).convert("RGB")


def oil(image: Image.Image) -> Image.Image:
    """Broad strokes of one colour each."""
    import cv2

    return _rgb(cv2.xphoto.oilPainting(_bgr(image), max(3, round(max(image.size) / 110)), 1))


def watercolour(image: Image.Image) -> Image.Image:
    """Soft areas, edges kept."""
    import cv2

    return _rgb(cv2.stylization(_bgr(image), sigma_s=60, sigma_r=0.45))


def poster(image: Image.Image) -> Image.Image:
    """Flat areas of few colours."""
    return ImageOps.posterize(image.filter(ImageFilter.MedianFilter(5)), 2)


def mosaic(image: Image.Image) -> Image.Image:
    """Squares of one colour each, 48 along the long side."""
    cell = max(image.size) / 48
    small = image.resize((max(1, round(image.width / cell)), max(1, round(image.height / cell))), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.NEAREST)


def _bgr(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image)[:, :, ::-1])


def _rgb(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]))


RESTORATIONS = (
    Operation("noise", "full of noise", noise, ("add strong film grain",), ("remove the noise from the photo",)),
    Operation(
        "compress",
        "badly compressed",
        compress,
        ("compress the photo until blocks show",),
        ("remove the compression artefacts",),
    ),
    Operation(
        "reduce", "in low resolution", reduce, ("make the photo low resolution",), ("make the photo sharp again",)
    ),
    Operation("fade", "faded", fade, ("make it look like a faded old print",), ("restore the faded old print",)),
)
STYLES = (
    Operation("charcoal", "as a charcoal drawing", charcoal, ("turn the photo into a charcoal drawing",), _REAL),
    Operation("oil", "as an oil painting", oil, ("turn the photo into an oil painting",), _REAL),
    Operation("watercolour", "as a watercolour", watercolour, ("turn the photo into a watercolour",), _REAL),
    Operation("poster", "as a screen print", poster, ("turn the photo into a screen print of few colours",), _REAL),
    Operation("mosaic", "as a mosaic", mosaic, ("turn the photo into a mosaic of squares",), _REAL),
)


def photo_edits(
    image: bytes,
    *,
    seed: str,
    operations: Sequence[Operation] = OPERATIONS,
    allowed: Callable[[str], bool] = lambda instruction: True,
) -> Iterator[Sample]:
    """Each operation on an encoded picture, and its inverse, as ti2i samples. Errors: `BadImage`.

    allowed: which instructions may be used; an operation without any, for itself or its inverse, is left out.
    Equal bytes and seed give equal samples. The check of each measures that its change is there, and nothing else is
    changed. An operation that changes nothing visible (gray, of a gray picture) gives no sample.
    """
    said = [
        replace(op, forward=tuple(filter(allowed, op.forward)), backward=tuple(filter(allowed, op.backward)))
        for op in operations
    ]
    said = [op for op in said if op.forward and op.backward]
    if not said:
        return
    before = decode(image)
    before.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    rng = random.Random(seed)
    plain = encode(before)
    for op in said:
        edited = encode(op.apply(before))
        instructions = rng.choice(op.forward), rng.choice(op.backward)
        checks = _checks(plain, edited), _checks(edited, plain)
        if all(checks):
            yield Sample(edited, instructions[0], "ti2i", (plain,), checks[0], f"photo-{op.name}")
            yield Sample(plain, instructions[1], "ti2i", (edited,), checks[1], f"photo-{op.name}-inverse")


def _checks(reference: bytes, result: bytes) -> tuple[dict[str, Any], ...]:
    """The check that the edit of two encoded pictures must pass; none if it changes nothing visible."""
    from curation.scorers.change import asked

    ranges = asked(decode_working(reference), decode_working(result))
    return ({"verifier": "change", "capability": "editing", "ranges": ranges},) if ranges else ()
