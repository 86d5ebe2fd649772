"""Verifiers of shapes, colours, places and counts on drawn cards."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from flywheel.demo.cards import ShapeGroup, Single, draw_group, draw_single, group_checks, single_checks
from flywheel.demo.edits import Edit, render_reword
from flywheel.demo.word_cards import Word, draw_word, word_checks
from tests.curation.verify.judged import judged, png


def test_checks_on_a_card_pass_and_fail_with_evidence():
    image = draw_single(Single("star", "green", "top", "white"), random.Random(0))
    outcomes = judged(
        image,
        {"verifier": "object", "capability": "object", "shape": "star"},
        {"verifier": "object", "capability": "object", "shape": "circle"},
        {"verifier": "color", "capability": "color", "shape": "star", "color": "green"},
        {"verifier": "color", "capability": "color", "color": "red"},
        {"verifier": "position", "capability": "position", "position": "top"},
        {"verifier": "position", "capability": "position", "position": "left"},
        {"verifier": "count", "capability": "count", "shape": "star", "count": 1},
        {"verifier": "count", "capability": "count", "shape": "star", "count": 3},
    )
    assert [o.passed for o in outcomes] == [True, False] * 4
    assert outcomes[3].evidence == {"expected": "red", "seen": "green"}
    assert outcomes[7].evidence["seen"] == 1 and outcomes[7].score == pytest.approx(1 / 3)
    assert all(o.threshold == 1.0 for o in outcomes)


def test_a_wrong_shape_still_gets_a_verdict_on_its_colour_and_place():
    image = draw_single(Single("circle", "green", "top", "white"), random.Random(0))
    outcomes = judged(
        image,
        {"verifier": "color", "capability": "color", "shape": "star", "color": "green"},
        {"verifier": "position", "capability": "position", "shape": "star", "position": "top"},
    )
    assert [o.passed for o in outcomes] == [True, True]


def test_nothing_to_see_fails_every_shape_check():
    outcomes = judged(
        png(np.full((64, 64, 3), 250)),
        {"verifier": "object", "capability": "object", "shape": "star"},
        {"verifier": "color", "capability": "color", "color": "red"},
        {"verifier": "position", "capability": "position", "position": "top"},
        {"verifier": "count", "capability": "count", "count": 2},
    )
    assert [o.passed for o in outcomes] == [False] * 4 and outcomes[3].score == 0.0


def passes(image: bytes, checks) -> bool:
    return all(o.passed for o in judged(image, *checks))


@pytest.mark.parametrize(
    ("card", "draw", "checks", "wrong"),
    [
        (
            Single("star", "green", "top", "white"),
            draw_single,
            single_checks,
            ({"shape": "circle"}, {"color": "red"}, {"position": "left"}, {"background": "pink"}),
        ),
        (
            ShapeGroup("star", "green", 2, "white"),
            draw_group,
            group_checks,
            ({"shape": "circle"}, {"color": "red"}, {"count": 3}, {"background": "pink"}),
        ),
        pytest.param(
            Word("KEY", "green", "white"),
            draw_word,
            word_checks,
            ({"word": "CAT"}, {"color": "red"}, {"background": "pink"}),
            marks=pytest.mark.slow,  # reads the words
        ),
    ],
)
def test_the_checks_of_a_card_judge_the_whole_prompt(card, draw, checks, wrong):
    assert passes(draw(card, random.Random(0)), checks(card))
    for change in wrong:
        assert not passes(draw(replace(card, **change), random.Random(0)), checks(card)), change


def test_one_shape_means_one():
    two = draw_group(ShapeGroup("star", "green", 2, "white"), random.Random(0))
    card = Single("star", "green", "left", "white")
    failed = [o.capability for o in judged(two, *single_checks(card)) if not o.passed]
    assert "object" in failed


@pytest.mark.slow
def test_an_edit_keeps_ink_and_background():
    before = Word("KEY", "green", "white")
    edit = Edit(before, replace(before, word="CAT"))
    checks = render_reword(edit, random.Random(0)).checks
    assert passes(draw_word(edit.after, random.Random(0)), checks)
    for change in ({"color": "red"}, {"background": "pink"}):
        assert not passes(draw_word(replace(edit.after, **change), random.Random(0)), checks)
