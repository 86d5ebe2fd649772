"""The gate judges pairs of results; every verdict is reached from hand-made results."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.presets import Gate
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


CAPABILITIES = ("color", "count", "text")
ORDER = ["regression", "tie", "win"]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict, dict]:
    """Candidate and incumbent on the same prompts."""
    keys = [(f"p{i}", c) for c in CAPABILITIES for i in range(draw(st.integers(1, 14)))]
    values = st.lists(st.booleans(), min_size=len(keys), max_size=len(keys))
    return dict(zip(keys, draw(values))), dict(zip(keys, draw(values)))


@settings(max_examples=60, deadline=None)
@given(pairs(), st.sets(st.sampled_from(CAPABILITIES)))
def test_the_verdict_follows_from_the_lines(pair: tuple[dict, dict], targets: set[str]):
    verdict = judge(*pair, targets=targets)
    outcomes_ = {line.check: line.outcome for line in verdict.lines}
    wins = {c for c, o in outcomes_.items() if o == "win" and (not targets or c in targets)}
    expected = "REJECT" if "regression" in outcomes_.values() else "PROMOTE" if wins else "HOLD"
    assert verdict.verdict == expected and set(outcomes_) == set(CAPABILITIES)
    for line in verdict.lines:
        change = line.candidate - line.incumbent
        assert line.low <= change + 1e-12 and change <= line.high + 1e-12
        assert round(change * line.n) == line.broken - line.fixed and 0 <= line.p_value <= 1


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_swapping_the_two_swaps_wins_and_regressions_and_equals_only_tie(pair: tuple[dict, dict]):
    strict = Gate(tolerance=0.0)
    there, back = judge(*pair, policy=strict), judge(*pair[::-1], policy=strict)
    assert [ORDER.index(x.outcome) for x in there.lines] == [2 - ORDER.index(x.outcome) for x in back.lines]
    same = judge(pair[0], pair[0], targets=["count"])
    assert same.verdict == "HOLD" and {x.outcome for x in same.lines} == {"tie"}


@settings(max_examples=60, deadline=None)
@given(pairs(), st.integers(0, 100))
def test_passing_one_prompt_more_never_makes_an_outcome_worse(pair: tuple[dict, dict], which: int):
    candidate, incumbent = pair
    better = candidate | {sorted(candidate)[which % len(candidate)]: True}
    lines = zip(judge(candidate, incumbent).lines, judge(better, incumbent).lines)
    assert all(ORDER.index(old.outcome) <= ORDER.index(new.outcome) for old, new in lines)


@pytest.mark.parametrize("regressing", CAPABILITIES)
def test_a_regression_in_any_capability_blocks_promotion(regressing: str):
    old = outcomes(**{c: [c == regressing] * 12 for c in CAPABILITIES})
    new = outcomes(**{c: [c != regressing] * 12 for c in CAPABILITIES})
    verdict = judge(new, old, targets=[c for c in CAPABILITIES if c != regressing])
    assert verdict.verdict == "REJECT" and verdict.reason == f"regression in {regressing}"
