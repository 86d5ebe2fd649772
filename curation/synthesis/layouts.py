"""Draw slides, posters, infographics and comics from layout templates (templates.toml)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from curation.synthesis.canvas import RGB
from curation.synthesis.glyphs import FONTS, fonts_for
from curation.synthesis.phrases import Texts, number
from curation.synthesis.typeset import MIN_SIZE, Box, draw, fit
from flywheel.core.config import read_toml

STYLES = ("slide", "poster", "infographic", "comic")
_TABLE = Path(__file__).with_name("templates.toml")
_NAMES = {
    "title": "the title", "label": "the line", "speech": "a speech bubble that says", "sentence": "the text",
    "number": "the figure",
}  # fmt: skip
_PLACES = (("top left", "top", "top right"), ("left", "middle", "right"), ("bottom left", "bottom", "bottom right"))
_BOLD = "matplotlib:mpl-data/fonts/ttf/DejaVuSans-Bold.ttf"
_FIXED: dict[str, RGB] = {"black": (20, 20, 20), "bubble": (255, 255, 255)}
_OVERSAMPLING = 2


@dataclass(frozen=True)
class Page:
    """A drawn page, its texts in reading order, and its caption."""

    image: Image.Image
    texts: tuple[str, ...]
    caption: str


def templates(style: str) -> tuple[str, ...]:
    """Names of the templates of a style."""
    return tuple(_table()[style])


def page(style: str, template: str, texts: Texts, rng: random.Random, side: int) -> Page:
    """A page whose short side is `side` pixels. Errors: `NoRoom` if a text does not fit."""
    layout = _table()[style][template]
    palette = rng.choice(_table()["palettes"])
    colors: dict[str, RGB] = _FIXED | {k: tuple(v) for k, v in palette.items() if k != "name"}
    width, height = _size(layout["ratio"], side)
    big = Image.new("RGB", (width * _OVERSAMPLING, height * _OVERSAMPLING), colors[layout.get("background", "paper")])
    canvas = ImageDraw.Draw(big)
    fonts = rng.sample(FONTS[texts.script], len(FONTS[texts.script]))
    written, places = [], []
    for element in layout["elements"]:
        box = _box(element["box"], big.size)
        if "shape" in element:
            _SHAPES[element["shape"]](canvas, box, colors[element["color"]], rng)
        else:
            written.append(_write(canvas, element, box, colors, texts, fonts, rng, big.height))
            places.append(f'{_NAMES[element["text"]]} "{written[-1]}" at the {_place(element["box"])}')
    caption = f"{_article(style)} in {palette['name']}: {', '.join(places)}"
    return Page(big.resize((width, height), Image.Resampling.BOX), tuple(written), caption)


def _write(
    canvas: ImageDraw.ImageDraw, element: dict[str, Any], box: Box, colors: dict[str, RGB], texts: Texts,
    fonts: Sequence[str], rng: random.Random, height: int,
) -> str:  # fmt: skip
    """Draw a text of the element's kind into its box, in the first of `fonts` with all its glyphs; returns the text."""
    text = number(rng) if element["text"] == "number" else getattr(texts, element["text"])(rng)
    usable = fonts_for(text, texts.script)
    font = _BOLD if element.get("bold") and _BOLD in usable else next(f for f in fonts if f in usable)
    setting = fit(
        text, box, font, element["size"] * height, smallest=MIN_SIZE * _OVERSAMPLING, lines=element.get("lines", 1)
    )
    draw(canvas, setting, box, colors[element.get("ink", "ink")], align=element.get("align", "left"))
    return text


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    return read_toml(_TABLE)


def _size(ratio: list[int], side: int) -> tuple[int, int]:
    scale = side / min(ratio)
    return round(ratio[0] * scale), round(ratio[1] * scale)


def _box(shares: list[float], size: tuple[int, int]) -> Box:
    return Box(shares[0] * size[0], shares[1] * size[1], shares[2] * size[0], shares[3] * size[1])


def _place(box: list[float]) -> str:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return _PLACES[min(2, int(y * 3))][min(2, int(x * 3))]


def _article(style: str) -> str:
    return f"an {style}" if style[0] in "aeiou" else f"a {style}"


# Shapes --------------------------------------------------------------------------------------------------------------
def _xy(box: Box) -> tuple[float, float, float, float]:
    return box.left, box.top, box.right, box.bottom


def _panel(canvas: ImageDraw.ImageDraw, box: Box, color: RGB, rng: random.Random) -> None:
    canvas.rectangle(_xy(box), fill=color)


def _frame(canvas: ImageDraw.ImageDraw, box: Box, color: RGB, rng: random.Random) -> None:
    canvas.rectangle(_xy(box), fill=color, outline=_FIXED["black"], width=max(2, round(box.width * 0.012)))


def _round(canvas: ImageDraw.ImageDraw, box: Box, color: RGB, rng: random.Random) -> None:
    canvas.rounded_rectangle(_xy(box), radius=min(box.width, box.height) * 0.12, fill=color)


def _ellipse(canvas: ImageDraw.ImageDraw, box: Box, color: RGB, rng: random.Random) -> None:
    canvas.ellipse(_xy(box), fill=color)


def _bubble(canvas: ImageDraw.ImageDraw, box: Box, color: RGB, rng: random.Random) -> None:
    canvas.rounded_rectangle(
        _xy(box), radius=box.height * 0.4, fill=color, outline=_FIXED["black"], width=max(2, round(box.width * 0.01))
    )


def _chart(canvas: ImageDraw.ImageDraw, box: Box, color: RGB, rng: random.Random) -> None:
    """The area under a line; separate bars would be read as letters."""
    count = rng.randint(4, 8)
    xs = [box.left + i * box.width / (count - 1) for i in range(count)]
    points = [(x, box.bottom - rng.uniform(0.25, 1.0) * box.height) for x in xs]
    canvas.polygon([(box.left, box.bottom), *points, (box.right, box.bottom)], fill=color)


def _figure(canvas: ImageDraw.ImageDraw, box: Box, color: RGB, rng: random.Random) -> None:
    """A person: shoulders, and a head with eyes and mouth."""
    middle, head = (box.left + box.right) / 2, box.height * 0.24
    skin = rng.choice(((246, 214, 182), (224, 172, 130), (160, 106, 70), (112, 74, 48)))
    canvas.rounded_rectangle(
        (box.left, box.top + 2 * head, box.right, box.bottom), radius=box.width * 0.3, fill=color,
        outline=_FIXED["black"], width=3,
    )  # fmt: skip
    y = box.top + head
    canvas.ellipse((middle - head, y - head, middle + head, y + head), fill=skin, outline=_FIXED["black"], width=3)
    for eye in (-0.38, 0.38):
        canvas.ellipse(
            (middle + (eye - 0.1) * head, y - 0.25 * head, middle + (eye + 0.1) * head, y + 0.05 * head),
            fill=_FIXED["black"],
        )
    smile = (middle - 0.4 * head, y, middle + 0.4 * head, y + 0.6 * head)
    canvas.arc(smile, 20, 160, fill=_FIXED["black"], width=max(3, round(head * 0.08)))


def _hills(canvas: ImageDraw.ImageDraw, box: Box, color: RGB, rng: random.Random) -> None:
    """A sun over two hills."""
    r = box.height * 0.18
    x = box.left + rng.uniform(0.2, 0.8) * box.width
    canvas.ellipse((x - r, box.top + r, x + r, box.top + 3 * r), fill=(244, 176, 60))
    for share, middle in ((0.75, rng.uniform(0.1, 0.4)), (0.9, rng.uniform(0.6, 0.9))):
        shade = tuple(round(c * share) for c in color)
        x, wide = box.left + middle * box.width, box.width * 0.6
        points = [(x - wide, box.bottom), (x, box.top + box.height * (1 - share * 0.7)), (x + wide, box.bottom)]
        canvas.polygon(points, fill=shade)


_SHAPES = {
    "panel": _panel, "rule": _panel, "frame": _frame, "round": _round, "ellipse": _ellipse, "bubble": _bubble,
    "chart": _chart, "figure": _figure, "hills": _hills,
}  # fmt: skip
