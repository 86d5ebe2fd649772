"""Word cards."""

from __future__ import annotations

import io
import random

import numpy as np
from PIL import Image

from flywheel.demo.palette import BACKGROUNDS, INKS
from flywheel.demo.word_cards import WORDS, Word, draw_word, word_caption, word_cards, word_meaning


def letters(card: Word) -> np.ndarray:
    """Columns of the picture, of 60, that hold ink."""
    image = Image.open(io.BytesIO(draw_word(card, random.Random(0)))).convert("RGB").resize((60, 60))
    away = np.abs(np.asarray(image, np.int16) - BACKGROUNDS[card.background]).max(axis=2)
    return (away > 60).any(axis=0)


def test_a_word_stands_in_the_middle_and_letters_have_equal_cells() -> None:
    inked = letters(Word("MAP", "black", "white"))
    assert not inked[:6].any() and not inked[-6:].any() and inked[20:40].any()
    assert letters(Word("MAPMAP", "black", "white")).sum() > inked.sum()


def test_every_wording_quotes_the_word_and_names_its_colours() -> None:
    card = Word("SALE", "orange", "pink")
    for text in {word_caption(card, random.Random(n)) for n in range(20)}:
        assert '"SALE"' in text and "orange" in text and "pink" in text
    (asked,) = word_meaning(card)
    assert asked is not None and (asked.words, asked.colors) == (("sale",), ("orange",))


def test_the_recipe_asks_for_the_word_of_each_card() -> None:
    recipe = word_cards()
    assert len(set(recipe.variants)) == len(recipe.variants) == len(WORDS) * len(INKS) * len(BACKGROUNDS)
    sample = recipe.render(Word("KEY", "red", "white"), random.Random(0))
    assert sample.checks == ({"verifier": "text", "capability": "typography", "text": "KEY"},)
    assert sample.image == draw_word(Word("KEY", "red", "white"), random.Random(0))
