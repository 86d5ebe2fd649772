"""Pages of paragraphs, up to about a thousand tokens, in one font on a plain or shaded background."""

from __future__ import annotations

import random

from PIL import ImageDraw

from curation.synthesis.canvas import RGB
from curation.synthesis.glyphs import fonts_for
from curation.synthesis.layouts import Page
from curation.synthesis.phrases import Texts
from curation.synthesis.typeset import LEADING, MIN_SIZE, Box, NoRoom, Setting, broken, draw, gradient, typeface

MAX_TOKENS = 950  # tokens of text; a caption adds a description and stays under 1,024
_RATIOS = ((3, 4), (1, 1), (4, 3), (2, 3))
_GROUNDS: dict[str, tuple[RGB, RGB, RGB]] = {  # ink, background at the top, background at the bottom
    "black on white": ((20, 20, 20), (255, 255, 255), (250, 250, 250)),
    "dark brown on cream": ((60, 40, 28), (252, 246, 230), (244, 232, 206)),
    "navy on light blue": ((20, 32, 80), (232, 242, 252), (206, 224, 244)),
    "white on dark green": ((248, 250, 246), (24, 66, 50), (14, 44, 36)),
    "cream on black": ((250, 240, 214), (34, 34, 36), (16, 16, 18)),
    "dark red on light gray": ((128, 24, 30), (244, 244, 244), (226, 226, 228)),
}


def page(texts: Texts, rng: random.Random, side: int, *, tokens: int = MAX_TOKENS) -> Page:
    """A page whose short side is `side` pixels, with at most `tokens` tokens; fewer if they do not fit.

    Lengths are drawn evenly on a logarithmic scale, so most pages are short. Errors: `NoRoom`.
    """
    ratio = rng.choice(_RATIOS)
    size = (round(side * ratio[0] / min(ratio)), round(side * ratio[1] / min(ratio)))
    name, (ink, above, below) = rng.choice(list(_GROUNDS.items()))
    wanted = round(min(tokens, 20 * (tokens / 20) ** rng.random()))
    paragraphs = [
        texts.paragraph(rng, wanted // count) for count in [rng.randint(1, 1 + wanted // 80)] for _ in range(count)
    ]
    margin = side * 0.07
    box = Box(margin, margin, size[0] - margin, size[1] - margin)
    font = rng.choice(fonts_for("".join(paragraphs), texts.script))
    settings: list[Setting] = []
    while not settings:
        settings = _fit(paragraphs, box, font, side * 0.09)
        if not settings:
            paragraphs = _shorter(paragraphs)
    image = gradient(size, above, below)
    canvas = ImageDraw.Draw(image)
    align = rng.choice(("left", "left", "centre"))
    top = box.top
    for setting in settings:
        draw(canvas, setting, Box(box.left, top, box.right, box.bottom), ink, align=align, centred=False)
        top += setting.height + setting.font.size * LEADING
    quoted = " ".join(f'"{p}"' for p in paragraphs)
    return Page(image, tuple(paragraphs), f"a page of text, {name}: {quoted}")


def _fit(paragraphs: list[str], box: Box, font: str, largest: float) -> list[Setting]:
    """All paragraphs in the largest common size that fits the box; empty if even `MIN_SIZE` is too large."""
    size = largest
    while size >= MIN_SIZE:
        face = typeface(font, round(size))
        settings = [Setting(tuple(broken(p, face, box.width)), face) for p in paragraphs]
        if sum(s.height for s in settings) + face.size * LEADING * (len(settings) - 1) <= box.height:
            return settings
        size *= 0.93
    return []


def _shorter(paragraphs: list[str]) -> list[str]:
    """All but the last paragraph. Errors: `NoRoom` if only one is left."""
    if len(paragraphs) == 1:
        raise NoRoom(f"{len(paragraphs[0])} characters do not fit on the page")
    return paragraphs[:-1]
