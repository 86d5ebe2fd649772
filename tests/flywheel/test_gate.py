"""The gate judges pairs of results; every verdict is reached from hand-made results."""

import pytest

from flywheel.preset import Gate
from flywheel.rounds.gate import judge


def outcomes(**passed: list[int]) -> dict[tuple[str, str], bool]:
    return {(f"p{i}", c): bool(ok) for c, values in passed.items() for i, ok in enumerate(values)}


def test_first_checkpoint_is_the_baseline():
    verdict = judge(outcomes(count=[0, 0]), None)
    assert verdict.verdict == "PROMOTE" and "no incumbent" in verdict.reason


def test_a_win_in_a_target_promotes():
    old = outcomes(typography=[0] * 12, color=[1] * 12)
    new = outcomes(typography=[1] * 10 + [0] * 2, color=[1] * 12)
    verdict = judge(new, old, targets=["typography"])
    line = next(x for x in verdict.lines if x.check == "typography")
    assert verdict.verdict == "PROMOTE"
    assert (line.outcome, line.fixed, line.broken) == ("win", 10, 0)
    assert line.incumbent == 1.0 and line.candidate == pytest.approx(2 / 12)
    assert line.low <= line.candidate - line.incumbent <= line.high < 0


def test_a_regression_anywhere_rejects_even_beside_a_win():
    old = outcomes(typography=[0] * 12, color=[1] * 12)
    new = outcomes(typography=[1] * 12, color=[0] * 8 + [1] * 4)
    verdict = judge(new, old, targets=["typography"])
    assert verdict.verdict == "REJECT" and "color" in verdict.reason


def test_a_win_outside_the_targets_only_holds():
    old = outcomes(typography=[0] * 12, color=[0] * 12)
    new = outcomes(typography=[0] * 12, color=[1] * 12)
    assert judge(new, old, targets=["typography"]).verdict == "HOLD"


def test_too_few_changes_are_a_tie():
    verdict = judge(outcomes(count=[1, 1, 0, 0]), outcomes(count=[0, 0, 0, 0]), targets=["count"])
    assert verdict.verdict == "HOLD" and verdict.lines[0].outcome == "tie"


def test_tolerance_forgives_a_small_significant_worsening():
    old = outcomes(color=[1] * 400)
    new = outcomes(color=[0] * 7 + [1] * 393)
    assert judge(new, old, policy=Gate(tolerance=0.05)).verdict == "HOLD"
    assert judge(new, old, policy=Gate(tolerance=0.0)).verdict == "REJECT"


def test_different_prompts_cannot_be_compared():
    with pytest.raises(ValueError, match="different prompts"):
        judge(outcomes(count=[1]), outcomes(count=[1, 1]))
