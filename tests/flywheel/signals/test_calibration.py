"""Calibration: a check stays only if it fails the nulls of what it claims to measure."""

from __future__ import annotations

import random

import pytest

from flywheel.demo.cards import Single, draw_single
from flywheel.signals.calibration import (
    OTHER_PROMPT,
    Separation,
    calibrate,
    fidelity,
    is_fidelity,
    load_separations,
    nulls_of,
    separation,
)
from flywheel.signals.held_rows import square
from flywheel.signals.nulls import Trial
from flywheel.signals.suite import Prompt, write_rows

CARDS = [("star", "green"), ("circle", "red"), ("square", "blue"), ("triangle", "green")]


def trials(verifier: str = "object", capability: str = "object") -> list[Trial]:
    made = []
    for shape, color in CARDS:
        check = {"verifier": verifier, "capability": capability, "shape": shape, "color": color}
        picture = square(draw_single(Single(shape, color, "centre", "white"), random.Random(0)), 128)
        made.append(Trial(Prompt(f"{shape}-{color}", f"a {color} {shape}", "t2i", (), (check,)), picture))
    return made


def the(made: list[Trial], spare: tuple[Trial, ...] = ()) -> Separation:
    told: list[tuple[int, int, str]] = []
    (check,) = calibrate(made, spare, progress=lambda *advance: told.append(advance)).checks
    assert told and told[-1][0] == told[-1][1]
    return check


def test_a_check_of_what_is_there_separates():
    check = the(trials())
    assert (check.own, check.nulls, check.left_out, check.prompts) == (1.0, {OTHER_PROMPT: 0.0, "flat": 0.0}, "", 4)


@pytest.mark.parametrize("capability, null", [("photorealism", "jpeg"), ("typography", "wrong_word")])
def test_the_same_check_under_another_label_is_left_out(capability: str, null: str):
    check = the(trials(capability=capability))
    assert check.nulls[null] == 1.0 and f"the null {null}" in check.left_out


def test_a_prompt_that_asks_for_the_same_is_no_null():
    check = the(trials("color", "color"))  # two cards are green, yet each asks for another shape
    assert check.left_out.startswith("it passes") and 0 < check.nulls[OTHER_PROMPT] < 0.5


def test_without_a_picture_of_another_prompt_nothing_is_proven():
    made = trials()
    assert "no picture of the null other_prompt" in the(made[:1]).left_out
    assert the(made[:1], spare=tuple(made[1:])).left_out == ""


def test_a_check_that_fails_true_pictures_is_left_out():
    made = trials()
    wrong = [Trial(t.prompt, made[n - 1].picture) for n, t in enumerate(made)]
    assert the(wrong).left_out.startswith("it passes 0 of ")


def test_an_edit_must_fail_where_the_reference_comes_back(tmp_path):
    made = []
    for n, (shape, _) in enumerate(CARDS):
        before, after = (
            square(draw_single(Single(shape, color, "centre", "white"), random.Random(0)), 128)
            for color in ("red", "blue")
        )
        path = tmp_path / f"{n}.png"
        path.write_bytes(before)
        check = {"verifier": "color", "capability": "editing", "color": "blue"}
        made.append(Trial(Prompt(f"e{n}", "make it blue", "ti2i", (path,), (check,)), after))
    half = calibrate(made)
    assert (
        half.checks[0].nulls["unedited"] == 0.0 and half.checks[0].nulls["other_edit"] == 1.0
    )  # it sees one half only
    assert not half.tells(made[0].prompt) and half.kept(made[0].prompt).checks == ()


def test_a_suite_says_how_much_of_it_judges_fidelity():
    photo, text = ({"verifier": "v", "capability": c} for c in ("photorealism", "typography"))
    suite = [Prompt(str(n), "x", "t2i", (), checks) for n, checks in enumerate([(photo,), (photo, text)])]
    assert "no prompt fidelity" in fidelity(suite[:1]) and "1 of 2" in fidelity(suite) and fidelity(suite[1:]) == ""
    assert not is_fidelity(text, "ti2i") and "unedited" in nulls_of(text, "ti2i")


def test_the_rates_are_kept_beside_the_suite(tmp_path):
    path = write_rows(tmp_path / "suite.jsonl", [{"prompt_id": "p", "prompt": "x", "task": "t2i", "checks": []}])
    assert load_separations(path) == [] and separation(path) == {}
    calibration = calibrate(trials())
    calibration.write(tmp_path / "calibration.json", ["left"])
    assert load_separations(path) == list(calibration.checks)
    assert separation(path) == {"object/object": {"own": 1.0, "null": 0.0}}
