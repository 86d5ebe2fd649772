"""Verifiers on pictures drawn for the case."""

from __future__ import annotations

import random

import numpy as np
import pytest

from curation.scorers import load
from curation.verify.checks import judge_columns, passed, verifiers, verify
from flywheel.core.errors import UsageError
from flywheel.core.scorer import Item
from flywheel.demo.cards import Single, draw_single
from flywheel.demo.mascot import Scene, draw_scene
from flywheel.demo.word_cards import Word, draw_word
from tests.curation.verify.judged import judged, png


def test_text_is_read_from_the_picture_and_one_wrong_letter_fails():
    image = draw_word(Word("MILK", "blue", "yellow"), random.Random(0))
    right, wrong = judged(
        image,
        {"verifier": "text", "capability": "typography", "text": "milk"},
        {"verifier": "text", "capability": "typography", "text": "SILK"},
    )
    assert right.passed and right.evidence["seen"].upper() == "MILK"
    assert not wrong.passed and wrong.score == pytest.approx(0.75)


def test_identity_and_unchanged_judge_edits_and_do_not_apply_without_references():
    before, after = (draw_scene(Scene("star", c, "left", "pink"), random.Random(0)) for c in ("red", "blue"))
    checks = ({"verifier": "identity", "capability": "identity"}, {"verifier": "unchanged", "capability": "editing"})
    assert [o.passed for o in judged(after, *checks, references=(before,))] == [True, True]
    outcomes = judged(after, *checks)
    assert [o.passed for o in outcomes] == [None, None] and "not_applied" in outcomes[0].evidence
    assert not passed(outcomes)


def test_photo_judges_pixel_statistics_inside_ranges():
    image = draw_single(Single("star", "green", "top", "white"), random.Random(0))
    entropy = load("photo").score([Item(image=image)])[0]["entropy"]
    check = {"verifier": "photo", "capability": "photorealism"}
    inside, outside = judged(
        image,
        check | {"ranges": {"entropy": [entropy - 0.1, entropy + 0.1]}},
        check | {"ranges": {"entropy": [entropy + 0.1, 8.0]}},
    )
    assert inside.passed and not outside.passed and outside.evidence["seen"]["entropy"] == entropy
    with pytest.raises(UsageError, match="beauty"):
        judged(image, check | {"ranges": {"beauty": [0, 1]}})


@pytest.mark.parametrize(
    ("check", "told"),
    [
        ({"verifier": "text", "text": None}, "a text that is text"),
        ({"verifier": "text", "text": "sale", "min": 0}, "a min above 0"),
        ({"verifier": "text", "text": "sale", "min": "x"}, "a min that is a number"),
        ({"verifier": "words", "texts": "sale"}, "a list of texts"),
        ({"verifier": "written", "texts": [3]}, "a list of texts"),
        ({"verifier": "imagenet", "classes": [5000]}, "numbers below 1000"),
        ({"verifier": "geneval", "include": [{"class": "cat", "count": 0}]}, "a count of 1 or more"),
        ({"verifier": "unchanged", "min": 0}, "a min above 0"),
        ({"verifier": "identity", "min": -1}, "a min above -1"),
        ({"verifier": "alignment", "min": -2}, "a min above -1"),
        ({"verifier": "unchanged", "max_changed": "a"}, "a max_changed from 0 to 1"),
        ({"verifier": "photo", "ranges": [0, 1]}, "ranges of two numbers each"),
        ({"verifier": "change", "ranges": {"light": [2, 1]}}, "ranges of two numbers each, the lower one first"),
        ({"verifier": "change", "ranges": {"light": [1]}}, "ranges of two numbers each"),
    ],
)
def test_a_check_that_anything_would_pass_or_that_cannot_be_read_is_named(check: dict, told: str):
    with pytest.raises(UsageError, match=told):
        judge_columns({"capability": "x", **check}, {"text": "", "detections": [], "classes": [], "probabilities": []})


def test_a_range_of_one_value_holds_that_value_alone():
    check = {"verifier": "change", "capability": "editing", "ranges": {"light": [1.0, 1.0]}}
    assert judge_columns(check, {"light": 1.0}).passed and not judge_columns(check, {"light": 1.1}).passed


def test_alignment_without_a_model_is_not_applied_and_never_passes():
    (outcome,) = judged(png(np.zeros((32, 32, 3))), {"verifier": "alignment", "capability": "alignment"})
    assert outcome.passed is None and "weights not reachable" in outcome.evidence["not_applied"]


class Counting:
    """A scorer that counts what it is asked for."""

    def __init__(self, inner):
        self.inner, self.name, self.version, self.fields, self.calls = inner, inner.name, "1", inner.fields, []

    def score(self, items):
        self.calls.append(len(items))
        return self.inner.score(items)


def test_each_scorer_runs_once_on_the_items_that_need_it():
    card = draw_single(Single("star", "green", "top", "white"), random.Random(0))
    items = [Item(image=card), Item(image=card), Item(image=card)]
    shape = {"verifier": "object", "capability": "object", "shape": "star"}
    count = {"verifier": "count", "capability": "count", "count": 1}
    counting = Counting(load("objects"))
    outcomes = verify(items, [[shape, count], [], [shape]], scorers={"objects": counting})
    assert counting.calls == [2]
    assert [[o.passed for o in group] for group in outcomes] == [[True, True], [], [True]]


def test_a_broken_image_fails_its_own_checks_only():
    card = draw_single(Single("star", "green", "top", "white"), random.Random(0))
    check = {"verifier": "object", "capability": "object", "shape": "star"}
    broken, good = verify([Item(image=b"no image"), Item(image=card)], [[check], [check]])
    assert broken[0].passed is False and "not an image" in broken[0].evidence["error"]
    assert good[0].passed is True


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ({"verifier": "beauty", "capability": "x"}, "unknown verifier 'beauty'"),
        ({"verifier": "text", "capability": "x"}, "needs text"),
        ({"verifier": "object", "shape": "star"}, "needs capability"),
        ({"verifier": "position", "capability": "x", "position": "north"}, "unknown position 'north'"),
    ],
)
def test_wrong_checks_are_usage_errors(check, message):
    with pytest.raises(UsageError, match=message):
        judged(png(np.zeros((32, 32, 3))), check)


def test_every_verifier_reads_a_registered_scorer():
    from curation.scorers import SCORERS

    own = {"detector"}  # named by the preset: none ships with the package
    assert {v.scorer for v in verifiers().values()} <= SCORERS.keys() | own


@pytest.mark.parametrize(
    "check",
    [
        {"verifier": "text", "text": "!!!"},
        {"verifier": "text", "text": "→ 🎨"},
        {"verifier": "text", "text": ""},
        {"verifier": "text", "text": "Привет мир"},
        {"verifier": "words", "texts": ["!!! →"]},
        {"verifier": "words", "texts": []},
        {"verifier": "words", "texts": ["Привет", "мир"]},
        {"verifier": "written", "language": "en", "texts": ["Привет мир"]},
        {"verifier": "written", "language": "en", "texts": ["مرحبا بالعالم"]},
        {"verifier": "written", "language": "zh", "texts": ["ありがとう"]},
        {"verifier": "written", "language": "en", "texts": ["สวัสดี"]},
        {"verifier": "photo", "ranges": {}},
        {"verifier": "geneval", "include": []},
    ],
    ids=str,
)
def test_a_check_with_nothing_to_judge_is_not_applied(check: dict) -> None:
    columns = {"text": "", "detections": []}
    outcome = judge_columns({"capability": "typography", **check}, columns)
    assert outcome.passed is None and "nothing to compare" in outcome.evidence["not_applied"] and not passed([outcome])
