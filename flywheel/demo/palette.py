"""Colours and sizes of the cards."""

from __future__ import annotations

from curation.synthesis.canvas import RGB

INKS: dict[str, RGB] = {
    "red": (214, 40, 40),
    "orange": (244, 132, 20),
    "green": (38, 150, 70),
    "blue": (32, 92, 200),
    "purple": (130, 52, 160),
    "black": (28, 28, 32),
}
BACKGROUNDS: dict[str, RGB] = {
    "white": (250, 250, 248),
    "yellow": (253, 236, 150),
    "pink": (252, 214, 222),
    "light blue": (204, 230, 250),
}
SIZES = (128, 160, 192, 256)  # pixels, native side of a card
