"""Canvas, fonts and encoding of drawn pictures; drawn large and reduced once, so that every edge is anti-aliased."""

from __future__ import annotations

import io
import random
from functools import lru_cache
from importlib import util
from pathlib import Path

from PIL import Image, ImageDraw

from flywheel.core.errors import UsageError

RGB = tuple[int, int, int]
Box = tuple[float, float, float, float]

_OVERSAMPLING = 3


class Canvas:
    """A square card of `side` pixels; coordinates are in units of the side, 0 to 1, y downwards."""

    def __init__(self, background: RGB, side: int) -> None:
        self.side = side
        self._scale = side * _OVERSAMPLING
        self.image = Image.new("RGB", (self._scale, self._scale), background)
        self.draw = ImageDraw.Draw(self.image)

    def polygon(self, points: list[tuple[float, float]], fill: RGB) -> None:
        self.draw.polygon([(x * self._scale, y * self._scale) for x, y in points], fill=fill)

    def ellipse(self, box: Box, fill: RGB) -> None:
        self.draw.ellipse([v * self._scale for v in box], fill=fill)

    def rounded(self, box: Box, fill: RGB, radius: float) -> None:
        self.draw.rounded_rectangle([v * self._scale for v in box], radius=radius * self._scale, fill=fill)

    def arc(self, box: Box, start: float, end: float, fill: RGB, width: float) -> None:
        self.draw.arc([v * self._scale for v in box], start, end, fill=fill, width=round(width * self._scale))

    def text(self, word: str, centre: tuple[float, float], font: str, cell: float, height: float, fill: RGB) -> None:
        """Write a word in capitals of `height`, each letter centred in a cell of width `cell`."""
        from PIL import ImageFont

        _, top, _, bottom = ImageFont.truetype(font, 100).getbbox("H")
        typeface = ImageFont.truetype(font, 100 * height * self._scale / (bottom - top))
        baseline = (centre[1] + height / 2) * self._scale
        for i, letter in enumerate(word):
            x = (centre[0] + (i - (len(word) - 1) / 2) * cell) * self._scale
            self.draw.text((x, baseline), letter, font=typeface, fill=fill, anchor="ms")

    def png(self) -> bytes:
        """PNG bytes of the finished card."""
        return encode(self.image.resize((self.side, self.side), Image.Resampling.BOX))


def encode(image: Image.Image) -> bytes:
    """PNG bytes in RGB; equal pictures give equal bytes."""
    out = io.BytesIO()
    image.convert("RGB").save(out, "PNG", compress_level=6)
    return out.getvalue()


def tint(color: RGB, rng: random.Random, spread: int = 4) -> RGB:
    """The colour with a small random variation per channel."""
    r, g, b = (min(255, max(0, c + rng.randint(-spread, spread))) for c in color)
    return r, g, b


@lru_cache
def font_path(name: str) -> str:
    """File of the font `package:path/inside` in an installed package. Errors: `UsageError` if it is missing."""
    package, _, inside = name.partition(":")
    spec = util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        if (path := Path(folder, inside)).is_file():
            return str(path)
    raise UsageError(f"font {inside} is not in the installed package {package!r}: install its pinned version")
