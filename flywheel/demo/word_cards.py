"""Word cards: one short word in a real font, large, in a stated colour."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from curation.synthesis.canvas import Canvas, font_path, tint
from curation.synthesis.sample import Recipe, Sample
from flywheel.demo.cards import article, background_check
from flywheel.demo.meaning import Meaning, meaning
from flywheel.demo.palette import BACKGROUNDS, INKS, SIZES

WORDS = ("KEY", "CAT", "MAP", "VAN", "FLY", "HUT")  # few, with few common letters: a tiny model learns them in a round
FONTS = ("matplotlib:mpl-data/fonts/ttf/DejaVuSansMono-Bold.ttf",)
CELL = 0.25  # of the side: each letter fills one cell, so that it looks the same in every word and place


@dataclass(frozen=True)
class Word:
    """One word in one ink on one background."""

    word: str
    color: str
    background: str


def draw_word(card: Word, rng: random.Random) -> bytes:
    """PNG of the card, with the word as large as fits."""
    canvas = Canvas(tint(BACKGROUNDS[card.background], rng, 3), rng.choice(SIZES))
    font = font_path(rng.choice(FONTS))
    cell = min(CELL, 0.94 / len(card.word))
    canvas.text(card.word, (0.5, 0.5), font, cell, cell, tint(INKS[card.color], rng))
    return canvas.png()


def word_caption(card: Word, rng: random.Random) -> str:
    """One of several wordings; each quotes the word and states its colour and the background."""
    quoted = f'"{card.word}"'
    return rng.choice(
        (
            f"the word {quoted} in {card.color} on {article(card.background)} card",
            f"{article(card.background)} card that says {quoted} in {card.color}",
            f"{article(card.color)} word {quoted}, {card.background} background",
            f"{article(card.color)} sign reading {quoted} on {article(card.background)} background",
        )
    )


def word_checks(card: Word) -> tuple[dict[str, Any], ...]:
    """The text of the card, letter by letter; its ink; the background."""
    return (
        {"verifier": "text", "capability": "typography", "text": card.word},
        ink_check(card.color),
        background_check(card.background),
    )


def ink_check(color: str, capability: str = "color") -> dict[str, Any]:
    """The colour of the letters: that of the largest."""
    return {"verifier": "color", "capability": capability, "color": color}


def word_meaning(card: Word) -> tuple[Meaning | None, ...]:
    """The meaning of the card's caption."""
    return (meaning(word_caption(card, random.Random(0))),)


def render_word(card: Word, rng: random.Random) -> Sample:
    """The card as a sample."""
    return Sample(draw_word(card, rng), word_caption(card, rng), "t2i", (), word_checks(card), "word-card")


def word_cards() -> Recipe:
    """Every word × ink × background."""
    variants = [Word(w, c, b) for w in WORDS for c in INKS for b in BACKGROUNDS]
    return Recipe("word-card", variants, word_meaning, render_word)
