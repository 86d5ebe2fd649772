"""What a prompt asks for, regardless of wording, so that no evaluation prompt enters training in other words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flywheel.core.text import normalise
from flywheel.demo.palette import BACKGROUNDS, INKS

SHAPES = ("circle", "square", "triangle", "star")
POSITIONS = ("left", "right", "top", "bottom", "centre")
NUMBERS = {"a": 1, "an": 1, "one": 1, "single": 1, "two": 2, "pair": 2, "three": 3}
_SYNONYMS = {"center": "centre", "middle": "centre", "upper": "top", "lower": "bottom", "grey": "gray"}
_QUOTED = re.compile(r'["“]([^"”]+)["”]')
_SETTING = re.compile(rf"\b({'|'.join(sorted(BACKGROUNDS, key=len, reverse=True))}) (?:card|background)s?\b")


@dataclass(frozen=True)
class Meaning:
    """The content of a prompt, in the order of mention; the background is ignored."""

    words: tuple[str, ...]
    colors: tuple[str, ...]
    shapes: tuple[str, ...]
    positions: tuple[str, ...]
    count: int
    mascot: bool


def meaning(prompt: str) -> Meaning | None:
    """What a prompt about a card asks for; None if it names neither a shape nor a quoted word."""
    text = normalise(prompt)
    words = tuple(w.strip() for w in _QUOTED.findall(text))
    tokens = [_SYNONYMS.get(t, t) for t in _SETTING.sub(" ", _QUOTED.sub(" ", text)).split()]
    singular = [t[:-1] if t.endswith("s") and t[:-1] in SHAPES else t for t in tokens]
    shapes = tuple(t for t in singular if t in SHAPES)
    if not shapes and not words:
        return None
    return Meaning(
        words=words,
        colors=tuple(t for t in singular if t in INKS),
        shapes=shapes,
        positions=tuple(t for t in singular if t in POSITIONS),
        count=max((NUMBERS[t] for t in tokens if t in NUMBERS), default=1),
        mascot="mascot" in tokens,
    )
