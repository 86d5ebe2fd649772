"""Pages of small text, to measure how an image codec degrades letters. Never used for training."""

from __future__ import annotations

import random
from collections.abc import Iterator

from PIL import Image, ImageDraw, ImageFont

from curation.synthesis.canvas import Canvas, font_path, tint

LATIN = ("Sans", "Sans-Bold", "Serif", "SansMono")
HAN = "mplfonts:fonts/SourceHanSerifSC-Regular.otf"
SIZES = (10, 12, 14, 18, 24, 32)  # pixels, at a page side of 256
PAPERS = ((250, 250, 248), (253, 236, 150), (252, 214, 222), (204, 230, 250))  # white, yellow, pink, light blue
INKS = ((214, 40, 40), (244, 132, 20), (38, 150, 70), (32, 92, 200), (130, 52, 160), (28, 28, 32))
LEADING = 1.4  # line spacing, in units of the font size
LATIN_WORDS = (
    "the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "seven", "wizards", "brew", "black", "coffee",
    "under", "bright", "lamps", "every", "report", "lists", "figures", "such", "as", "3.14", "2026", "68%", "$19.50",
    "No.7", "(draft)", "with", "notes", "tables", "charts", "axes", "labels", "units", "totals",
)  # fmt: skip
CHARACTERS = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分"
    "对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经"
)


def pages(count: int, *, seed: int, side: int = 256) -> Iterator[Image.Image]:
    """`count` RGB pages of `side` pixels: lines in English and Chinese, several fonts, sizes and colours."""
    for number in range(count):
        yield page(random.Random(f"{seed}/page/{number}"), side)


def page(rng: random.Random, side: int) -> Image.Image:
    """One page, filled from the top with lines of full width."""
    canvas = Canvas(tint(rng.choice(PAPERS), rng), side)
    width = canvas.image.width
    unit, margin, top = width / 256, width // 32, width // 32
    while fitting := [s for s in SIZES if top + LEADING * s * unit <= width - margin]:
        size = round(rng.choice(fitting) * unit)
        han = rng.random() < 0.4
        latin = f"matplotlib:mpl-data/fonts/ttf/DejaVu{rng.choice(LATIN)}.ttf"
        font = ImageFont.truetype(font_path(HAN if han else latin), size)
        canvas.draw.text(
            (margin, top), _line(rng, han, canvas.draw, font, width - 2 * margin), font=font,
            fill=tint(rng.choice(INKS), rng),
        )  # fmt: skip
        top += round(LEADING * size)
    return canvas.image.resize((side, side), Image.Resampling.BOX)


def _line(rng: random.Random, han: bool, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, width: int) -> str:
    line = ""
    while True:
        longer = line + rng.choice(CHARACTERS) if han else f"{line} {rng.choice(LATIN_WORDS)}".strip()
        if draw.textlength(longer, font=font) > width:
            return line
        line = longer
