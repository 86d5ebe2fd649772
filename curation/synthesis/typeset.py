"""Set text in the largest size that fits a box, with line breaks by the rules of its script."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from curation.synthesis.canvas import RGB, font_path

LEADING = 1.35  # line spacing, in units of the font size
MIN_SIZE = 14  # pixels: OCR does not read smaller text reliably
_STEP = 0.93  # ratio of successive sizes to try
_NOT_FIRST = "、。，．！？：；）」』】》ーっゃゅょッャュョ々,.!?:;)%’"  # no line starts with these
_PIECE = re.compile(r"[A-Za-z0-9À-ɏ$€%’'.:,/-]+|.")  # an alphabetic word or number, or one character


class NoRoom(ValueError):
    """The text does not fit its box in a readable size."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


@dataclass(frozen=True)
class Setting:
    """A text broken into lines, in one font and size."""

    lines: tuple[str, ...]
    font: ImageFont.FreeTypeFont

    @property
    def height(self) -> float:
        """Pixels from the top of the first line to the bottom of the last."""
        return self.font.size * (LEADING * (len(self.lines) - 1) + 1)


@lru_cache(maxsize=256)
def typeface(font: str, size: int) -> ImageFont.FreeTypeFont:
    """The font `package:path/inside` in a size in pixels."""
    return ImageFont.truetype(font_path(font), size)


def fit(text: str, box: Box, font: str, largest: float, *, smallest: float = MIN_SIZE, lines: int = 100) -> Setting:
    """The text in the largest size that fits the box in at most `lines` lines; sizes in pixels. Errors: `NoRoom`."""
    size = largest
    while size >= smallest:
        face = typeface(font, round(size))
        setting = Setting(tuple(broken(text, face, box.width)), face)
        if setting.height <= box.height and len(setting.lines) <= lines and _widest(setting) <= box.width:
            return setting
        size *= _STEP
    raise NoRoom(f"{len(text)} characters do not fit into {box.width:.0f} x {box.height:.0f} pixels")


def broken(text: str, face: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Lines of at most `width` pixels, broken between words, or between characters in scripts without spaces."""
    lines, line = [], ""
    for piece in _pieces(text):
        longer = line + piece
        if line and face.getlength(longer.rstrip()) > width:
            lines.append(line.rstrip())
            longer = piece.lstrip()
        line = longer
    return [*lines, line.rstrip()] if line.strip() else lines


def draw(
    canvas: ImageDraw.ImageDraw, setting: Setting, box: Box, fill: RGB, *, align: str = "left", centred: bool = True
) -> None:
    """Write the lines into the box. `align`: left, centre or right; `centred`: vertically, else from the top."""
    top = box.top + ((box.height - setting.height) / 2 if centred else 0)
    x, anchor = {
        "left": (box.left, "lm"), "centre": ((box.left + box.right) / 2, "mm"), "right": (box.right, "rm"),
    }[align]  # fmt: skip
    for number, line in enumerate(setting.lines):
        y = top + setting.font.size * (0.5 + LEADING * number)
        canvas.text((x, y), line, font=setting.font, fill=fill, anchor=anchor)


def gradient(size: tuple[int, int], start: RGB, end: RGB) -> Image.Image:
    """RGB picture with a gradient from one colour at the top to another at the bottom."""
    ramp = Image.linear_gradient("L").resize(size)
    return Image.composite(Image.new("RGB", size, end), Image.new("RGB", size, start), ramp)


def _widest(setting: Setting) -> float:
    return max(setting.font.getlength(line) for line in setting.lines)


def _pieces(text: str) -> list[str]:
    """Pieces that a line break never splits: a word with its space, a character with following punctuation."""
    pieces: list[str] = []
    for piece in _PIECE.findall(text):
        if pieces and (piece[0] in _NOT_FIRST or piece.isspace()):
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return pieces
