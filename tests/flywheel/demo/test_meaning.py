"""What a prompt about a card asks for."""

from __future__ import annotations

from flywheel.demo.meaning import Meaning, meaning


def test_everything_that_a_card_can_show() -> None:
    text = "Two RED circles at the upper left, beside the mascot, and the word “Sun” in blue, on a light blue card"
    assert meaning(text) == Meaning(("sun",), ("red", "blue"), ("circle",), ("top", "left"), 2, True)


def test_the_background_is_not_part_of_it_but_its_colour_elsewhere_is() -> None:
    assert meaning("a star on a white card") == meaning("a star, pink background")
    assert meaning("a blue star on a light blue card") == meaning("a blue star on a yellow card")


def test_a_prompt_without_shape_or_quoted_word_has_none() -> None:
    assert meaning("two red things on the left") is None
    assert meaning("") is None
