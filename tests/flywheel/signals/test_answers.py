"""Outcomes from what a judge says about a picture."""

from __future__ import annotations

import pytest

from flywheel.signals.answers import EDIT_SCORE, edit_outcome, question_outcome, with_dependencies
from flywheel.signals.suite import Prompt

QUESTION = {"verifier": "question", "capability": "object", "question": "Is there a cat?", "aspect": "entity"}
EDIT = {"verifier": "edit", "capability": "editing"}
KEYS = ("success", "no_overediting", "natural", "no_artifacts")


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        ("yes", True),
        (" Yes. ", True),
        ("NO", False),
        (True, True),
        (False, False),
        ("maybe", None),
        (None, None),
        (1, None),
    ],
)
def test_an_answer_is_yes_or_no_or_nothing(answer: object, passed: bool | None) -> None:
    outcome = question_outcome(QUESTION, answer)
    assert (outcome.passed, outcome.capability, outcome.evidence["question"]) == (passed, "object", "Is there a cat?")
    assert outcome.score == (None if passed is None else float(passed))
    assert ("not_applied" in outcome.evidence) == (passed is None)


def test_why_there_is_no_answer_is_kept() -> None:
    assert question_outcome(QUESTION, None, "no judge").evidence["not_applied"] == "no judge"
    assert edit_outcome(EDIT, None, "no judge").evidence == {"not_applied": "no judge"}


def test_an_edit_is_the_geometric_mean_of_its_weaker_halves() -> None:
    outcome = edit_outcome(EDIT, dict(zip(KEYS, (9, 4, 8, 10))))
    assert outcome.score == pytest.approx((4 * 8) ** 0.5 / 10) and not outcome.passed
    assert (outcome.threshold, outcome.evidence["failed"]) == (EDIT_SCORE, ["no_overediting"])
    assert edit_outcome(EDIT | {"min": 0.5}, dict(zip(KEYS, (9, 4, 8, 10)))).passed
    assert edit_outcome(EDIT, dict.fromkeys(KEYS, 0)).score == 0


@pytest.mark.parametrize("ratings", [None, {}, dict.fromkeys(KEYS[:3], 9), dict.fromkeys(KEYS, "9")])
def test_an_edit_without_all_four_ratings_is_not_judged(ratings: dict | None) -> None:
    outcome = edit_outcome(EDIT, ratings)
    assert (outcome.passed, outcome.score) == (None, None) and outcome.evidence["not_applied"]


def test_a_question_whose_parent_fails_scores_nothing_but_is_no_failure_and_passes_it_on() -> None:
    checks = [QUESTION | {"id": n, "parents": p} for n, p in ((1, []), (2, [1]), (3, [2]), (4, [9]))]
    prompt = Prompt("p", "a red cat", "t2i", (), tuple(checks))
    outcomes = [question_outcome(c, a) for c, a in zip(checks, ("no", "yes", "yes", "yes"))]
    judged = with_dependencies(prompt, outcomes)
    assert [(o.score, o.passed) for o in judged] == [(0, False), (0, None), (0, None), (1, True)]
    assert judged[1].evidence["not_applied"] == "its parent question 1 does not hold"
    assert [o.score for o in outcomes] == [0, 1, 1, 1], "the given outcomes stay"
