"""Drawn scenes, slides of one template, and what people do to pictures before they share them again."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from curation.decide.alignment import Sketch
from curation.scorers.copies import Copies
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded


def scene(seed: int, width: int = 640, height: int = 480) -> Image.Image:
    """Shapes of many colours on a shaded ground, with grain."""
    rng = np.random.default_rng(seed)
    field = rng.integers(30, 226, (7, 9, 1)) * rng.uniform(0.55, 1.05, 3)
    image = Image.fromarray(field.clip(0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(24):
        x, y, side = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(20, 120)
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        angles = np.linspace(0, 2 * np.pi, int(rng.integers(3, 7)), endpoint=False) + rng.uniform(0, 2)
        draw.polygon([(x + side * np.cos(a), y + side * np.sin(a)) for a in angles], fill=colour)
    noisy = np.asarray(image).astype(np.int16) + rng.integers(-25, 26, (height, width, 1))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def slide(lines: Sequence[str], size: int = 40) -> Image.Image:
    """A slide of one template with these lines."""
    font = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    image = Image.new("RGB", (1024, 768), (245, 245, 250))
    draw = ImageDraw.Draw(image)
    draw.rectangle([0, 0, 1024, 110], fill=(20, 60, 120))
    draw.rectangle([60, 180, 964, 688], outline=(20, 60, 120), width=4)
    draw.text((40, 30), "WEEKLY REPORT", fill="white", font=ImageFont.truetype(font, 44))
    for k, text in enumerate(lines):
        draw.text((100, 230 + 70 * k), text, fill="black", font=ImageFont.truetype(font, size))
    return image


def again(image: Image.Image, quality: int = 80) -> Image.Image:
    """Saved as JPEG and opened."""
    return Image.open(io.BytesIO(encoded(image, "JPEG", quality=quality))).convert("RGB")


def _cropped(image: Image.Image) -> Image.Image:
    return image.crop((round(image.width * 0.06), round(image.height * 0.08), image.width, image.height))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": ImageOps.mirror,
    "framed": lambda image: ImageOps.expand(image, 50, (255, 255, 255)),
    "turned": lambda image: image.rotate(4, Image.Resampling.BICUBIC),
    "cropped": _cropped,
    "gray": lambda image: image.convert("L").convert("RGB"),
    "reduced": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
}


def sketch(image: Image.Image) -> Sketch:
    """What the scorer keeps of a picture."""
    (row,) = Copies().score([Item(encoded(image))])
    assert isinstance(row, dict)
    return Sketch.of(**row)
