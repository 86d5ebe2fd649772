"""Copies agree, other pictures and other texts do not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from curation.decide.agreement import agreement
from tests.curation.copied import COPIES, again, scene, sketch, slide

LEAST = 0.6  # the policy's


@pytest.mark.parametrize("kind", COPIES)
def test_copies_agree(kind: str) -> None:
    for seed in (1, 2, 3):
        found = agreement(sketch(scene(seed)), sketch(again(COPIES[kind](scene(seed)))), by_landmarks=True)
        assert found.share >= LEAST and not found.differs, (kind, seed, found)


def test_the_order_of_two_pictures_does_not_matter() -> None:
    whole = scene(1)
    first, second = sketch(whole), sketch(again(whole.crop((0, 0, round(whole.width * 0.6), whole.height))))
    found = agreement(first, second, by_landmarks=True)
    assert found.share >= LEAST and found == agreement(second, first, by_landmarks=True)


def test_other_pictures_do_not_agree() -> None:
    sketches = [sketch(scene(seed)) for seed in range(8)]
    shares = [agreement(a, b).share for n, a in enumerate(sketches) for b in sketches[:n]]
    assert max(shares) < LEAST / 2


@pytest.mark.parametrize("size", [22, 40])
def test_slides_of_one_template_differ(size: int) -> None:
    """In all lines, in one word, and by a line more."""
    first = ["Revenue grew by ten percent", "in the northern region"]
    others = [["Costs were lower than planned", "because travel was cut"], [first[0], "in the southern region"]]
    plain = sketch(slide(first, size))
    for lines in (*others, [*first, "and in the west"]):
        assert agreement(plain, sketch(again(slide(lines, size)))).differs, lines
    same = agreement(plain, sketch(again(slide(first, size), 70)))
    assert same.share >= LEAST and not same.differs


def _rough() -> Image.Image:
    """A picture that is flat nowhere."""
    grain = np.random.default_rng(0).integers(-60, 60, (96, 128, 1)).repeat(5, axis=0).repeat(5, axis=1)
    return Image.fromarray(np.clip(np.asarray(scene(7)).astype(int) + grain, 0, 255).astype(np.uint8))


def _titled(title: str) -> Image.Image:
    image = _rough()
    ImageDraw.Draw(image).text((40, 60), title, fill="white", font_size=70)
    return image


def test_titles_on_one_photograph_differ() -> None:
    """Another title, and a title on one of them alone."""
    first, second, none = sketch(_titled("SPRING SALE")), sketch(_titled("NEW BOOKS")), sketch(_rough())
    assert agreement(first, second).differs and agreement(none, first).differs
    same = agreement(first, sketch(again(_titled("SPRING SALE"), 70)))
    assert same.share >= LEAST and not same.differs


def test_words_over_strong_edges_differ() -> None:
    """Structure hardly changes where white words cross white stripes; light does."""
    stripes = np.asarray(_rough()).copy()
    for top in range(20, 260, 40):
        stripes[top : top + 20] = np.clip(stripes[top : top + 20].astype(int) // 4 + 190, 0, 255)
    plain = Image.fromarray(stripes)
    said = plain.copy()
    ImageDraw.Draw(said).text((40, 118), "NORTH FRIDAY", fill="white", font_size=44)
    assert agreement(sketch(plain), sketch(said)).differs
    assert not agreement(sketch(said), sketch(again(said, 70))).differs


def test_another_colour_is_another_picture() -> None:
    red, green, blue = scene(9).split()
    other = Image.merge("RGB", (blue, red, green))
    assert agreement(sketch(scene(9)), sketch(other), by_landmarks=True).share == 0
    gray = scene(9).convert("L").convert("RGB")
    assert agreement(sketch(scene(9)), sketch(gray), by_landmarks=True).share > 0.9


def test_a_part_is_not_the_picture() -> None:
    part = scene(11).crop((0, 0, 320, 240))
    assert agreement(sketch(scene(11)), sketch(part)).share < LEAST / 2


def test_blank_pictures_agree() -> None:
    blank = sketch(Image.fromarray(np.full((200, 300, 3), 90, np.uint8)))
    found = agreement(blank, blank)
    assert found.share == 1 and not found.differs
