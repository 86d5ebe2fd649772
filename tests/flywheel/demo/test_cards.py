"""Cards show what their captions say, and a picture depends on nothing but card and seed."""

from __future__ import annotations

import random

import pytest

from curation.synthesis.canvas import Canvas
from flywheel.demo.cards import (
    GROUPS,
    ShapeGroup,
    Single,
    article,
    draw_group,
    draw_shape,
    draw_single,
    group_caption,
    group_cards,
    single_caption,
    single_cards,
)
from flywheel.demo.meaning import POSITIONS, SHAPES, meaning
from flywheel.demo.palette import BACKGROUNDS, INKS
from tests.curation.verify.judged import judged


def test_every_wording_names_all_there_is() -> None:
    single, group = Single("star", "orange", "centre", "light blue"), ShapeGroup("circle", "red", 3, "pink")
    for text in {single_caption(single, random.Random(n)) for n in range(20)}:
        asked = meaning(text)
        assert asked is not None and "light blue" in text
        assert (asked.shapes, asked.colors, asked.positions, asked.count) == (("star",), ("orange",), ("centre",), 1)
    for text in {group_caption(group, random.Random(n)) for n in range(20)}:
        asked = meaning(text)
        assert asked is not None and "pink" in text
        assert (asked.shapes, asked.colors, asked.count) == (("circle",), ("red",), 3)
    assert (article("orange star"), article("red star")) == ("an orange star", "a red star")


def test_recipes_have_every_combination_once() -> None:
    colors = len(SHAPES) * len(INKS) * len(BACKGROUNDS)
    for recipe, count in ((single_cards(), colors * len(POSITIONS)), (group_cards(), colors * len(GROUPS))):
        assert len(set(recipe.variants)) == len(recipe.variants) == count


@pytest.mark.parametrize("recipe", [single_cards(), group_cards()], ids=lambda r: r.name)
def test_a_card_passes_its_own_checks(recipe) -> None:
    for variant in random.Random(1).sample(list(recipe.variants), 4):
        sample = recipe.render(variant, random.Random(2))
        assert [o.passed for o in judged(sample.image, *sample.checks)] == [True] * len(sample.checks)


def test_the_seed_moves_a_shape_a_little_and_nothing_else_does() -> None:
    card, pair = Single("square", "blue", "top", "white"), ShapeGroup("square", "blue", 2, "white")
    assert draw_single(card, random.Random(5)) == draw_single(card, random.Random(5))
    assert draw_single(card, random.Random(5), 64) != draw_single(card, random.Random(6), 64)
    assert draw_group(pair, random.Random(5)) != draw_group(pair, random.Random(6))


def test_a_shape_that_nobody_draws_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown shape 'hexagon': choose from circle"):
        draw_shape(Canvas((255, 255, 255), 64), "hexagon", 0.5, 0.5, 0.2, (0, 0, 0))
