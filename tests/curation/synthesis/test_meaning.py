"""Prompts of one meaning agree, others differ."""

from __future__ import annotations

import random

import pytest

from curation.synthesis import meaning
from flywheel.demo.cards import group_cards, single_cards
from flywheel.demo.word_cards import word_cards


@pytest.mark.parametrize(
    ("prompt", "same"),
    [
        ("a red circle on the left of a white card", "One RED circle at the left, pink background!"),
        ("three blue stars on a yellow card", "a pink card with exactly three blue stars"),
        ('the word "SUN" in green on a pink card', "a green sign reading “sun” on a light blue background"),
        ("make the red star blue", "change the red star to blue"),
        ("a black square in the center of a white card", "a black square in the middle, white background"),
    ],
)
def test_wordings_of_one_meaning_agree(prompt, same):
    assert meaning(prompt) == meaning(same) is not None


@pytest.mark.parametrize(
    ("prompt", "other"),
    [
        ("a red circle on the left of a white card", "a red circle on the right of a white card"),
        ("two blue stars on a white card", "three blue stars on a white card"),
        ('the word "SUN" in green on a pink card', 'the word "SUN" in red on a pink card'),
        ("make the red star blue", "make the blue star red"),
        ("make the red star blue", "make the red star blue and keep the mascot"),
    ],
)
def test_other_meanings_differ(prompt, other):
    assert meaning(prompt) != meaning(other)


def test_a_prompt_about_something_else_has_no_meaning_here():
    assert meaning("a photograph of a tench") is None


def test_every_wording_of_every_variant_has_its_meaning():
    for recipe in (single_cards(), group_cards(), word_cards()):
        for variant in random.Random(0).sample(list(recipe.variants), 40):
            captions = {recipe.render(variant, random.Random(i)).caption for i in range(6)}
            assert {meaning(c) for c in captions} == set(recipe.meanings(variant)), captions
