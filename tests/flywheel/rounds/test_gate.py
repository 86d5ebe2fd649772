"""The gate judges pairs of results; every verdict is reached from hand-made results."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.core.errors import UsageError
from flywheel.presets import Gate
from flywheel.rounds.gate import Verdict, holm, judge

Shares = dict[tuple[str, str], float]


def outcomes(**passed: list[float]) -> Shares:
    return {(f"p{i}", c): float(ok) for c, values in passed.items() for i, ok in enumerate(values)}


def outcome(verdict: Verdict, capability: str) -> str:
    return next(x.outcome for x in verdict.lines if x.check == capability)


def test_first_checkpoint_is_the_baseline():
    verdict = judge(outcomes(count=[0, 0]), None)
    assert verdict.verdict == "PROMOTE" and "no incumbent" in verdict.reason


def test_a_win_in_a_target_promotes_if_losses_are_ruled_out():
    old = outcomes(typography=[0] * 12, color=[1] * 30)
    new = outcomes(typography=[1] * 10 + [0] * 2, color=[1] * 30)
    verdict = judge(new, old, targets=["typography"])
    line = next(x for x in verdict.lines if x.check == "typography")
    assert verdict.verdict == "PROMOTE" and verdict.reason.startswith("win in typography;")
    assert (line.outcome, line.fixed, line.broken, line.margin) == ("win", 10, 0, 0.1)
    assert line.incumbent == 1.0 and line.candidate == pytest.approx(2 / 12)
    assert line.low <= line.candidate - line.incumbent <= line.high < 0
    assert line.best is line.best_round is line.best_low is line.needed is None


@pytest.mark.parametrize("broken", [0, 1, 4, 5])
def test_a_few_newly_broken_prompts_of_thirty_are_no_tie(broken: int):
    old = outcomes(typography=[0] * 30, color=[1] * 30)
    new = outcomes(typography=[1] * 30, color=[0] * broken + [1] * (30 - broken))
    verdict = judge(new, old, targets=["typography"], pictures=2)
    assert verdict.verdict == ("HOLD" if broken else "PROMOTE")
    if broken:
        needed = next(x.needed for x in verdict.lines if x.check == "color")
        assert outcome(verdict, "color") == "unclear" and needed > 30
        assert f"color (30 prompts of 2 pictures, about {needed} would tell)" in verdict.reason


def test_a_loss_beyond_the_margin_rejects_even_beside_a_win():
    old = outcomes(typography=[0] * 12, color=[1] * 30)
    new = outcomes(typography=[1] * 12, color=[0] * 12 + [1] * 18)
    verdict = judge(new, old, targets=["typography"])
    assert verdict.verdict == "REJECT" and outcome(verdict, "color") == "regression"
    assert verdict.reason == "loss beyond the margin in color (20 to 57 points more failures than the incumbent)"
    assert judge(old, new, targets=["color"]).verdict == "REJECT", "the arms swapped: typography is lost"


def test_a_capability_of_three_prompts_holds_until_it_is_not_guarded():
    old = outcomes(typography=[0] * 12, identity=[1] * 3)
    new = outcomes(typography=[1] * 12, identity=[1] * 3)
    verdict = judge(new, old, targets=["typography"])
    assert verdict.verdict == "HOLD" and "identity (3 prompts, about 29 would tell)" in verdict.reason
    assert judge(new, old, targets=["typography"], policy=Gate(margins={"identity": 1.0})).verdict == "PROMOTE"


def test_a_win_outside_the_targets_only_holds():
    old = outcomes(typography=[0] * 30, color=[0] * 12)
    new = outcomes(typography=[0] * 30, color=[1] * 12)
    assert judge(new, old, targets=["typography"]).verdict == "HOLD"
    assert judge(new, old).verdict == "PROMOTE", "without targets, any win counts"


def test_a_small_gain_of_a_target_holds_and_says_what_would_show_it():
    old = outcomes(count=[0] * 60)
    new = outcomes(count=[1] * 3 + [0] * 57)
    verdict = judge(new, old, targets=["count"])
    line = verdict.lines[0]
    assert verdict.verdict == "HOLD" and line.outcome == "tie" and line.p_value == pytest.approx(0.125)
    assert "a change as seen needs a larger suite to show: count (60 prompts, about " in verdict.reason
    more = line.needed // 60 + 1
    assert judge(outcomes(count=([1] * 3 + [0] * 57) * more), outcomes(count=[0] * 60 * more)).verdict == "PROMOTE"


@pytest.mark.parametrize("repaired", [5, 6, 7])
def test_a_suite_that_did_not_tell_needs_to_be_larger(repaired: int):
    others = {name: [1.0] * 10 for name in ("color", "count", "editing", "identity", "object", "position")}
    old = outcomes(typography=[0] * 10, **others)
    new = outcomes(typography=[0.5] * repaired + [0] * (10 - repaired), **others)
    line = next(x for x in judge(new, old, targets=["typography"]).lines if x.check == "typography")
    assert line.outcome in ("tie", "unclear") and (line.needed is None or line.needed > 10)


def test_the_margin_decides_what_is_lost():
    old = outcomes(color=[1] * 400)
    new = outcomes(color=[0] * 30 + [1] * 370)
    assert [judge(new, old, policy=Gate(margin=m)).verdict for m in (0.03, 0.08, 0.12)] == ["REJECT", "HOLD", "HOLD"]
    assert [outcome(judge(new, old, policy=Gate(margin=m)), "color") for m in (0.08, 0.12)] == ["unclear", "tie"]


def test_more_pictures_of_a_prompt_tell_more():
    dice = np.random.default_rng(0)
    rate = dice.uniform(0.2, 0.8, 60)
    drawn = [dice.random((60, 16)) < rate[:, None] for _ in range(2)]
    few, many = ([outcomes(count=list(d[:, :k].mean(axis=1))) for d in drawn] for k in (1, 16))
    assert outcome(judge(*few), "count") == "unclear"
    assert outcome(judge(*many), "count") == "tie"


def slide(round_: int) -> Shares:
    """Fails 4 points more from round to round, and fixes another capability meanwhile."""
    lost = 8 * (round_ - 1)
    return outcomes(color=[0] * lost + [1] * (200 - lost), text=[1] * 30 * round_ + [0] * (200 - 30 * round_))


def test_a_slow_slide_over_promoted_rounds_is_stopped():
    earlier, verdicts = {1: slide(1)}, []
    for n in range(2, 6):
        verdict = judge(slide(n), earlier[max(earlier)], earlier=earlier, targets=["text"])
        alone = judge(slide(n), slide(n - 1), targets=["text"])
        assert alone.verdict == "PROMOTE", "each step alone is within the margin"
        verdicts.append(verdict.verdict)
        earlier[n] = slide(n)
    assert verdicts == ["PROMOTE", "HOLD", "HOLD", "REJECT"]
    line = next(x for x in verdict.lines if x.check == "color")
    assert (line.best, line.best_round, line.outcome) == (0.0, 1, "regression") and 0.1 < line.best_low < 0.16
    assert verdict.reason.endswith("points more failures than the best, of round 1)")


def test_a_recovery_passes_although_the_best_is_still_better():
    best, now, better = (outcomes(color=[0] * n + [1] * (200 - n)) for n in (0, 80, 40))
    assert judge(better, now, earlier={1: best, 2: now}, targets=["color"]).verdict == "PROMOTE"
    assert judge(now, now, earlier={1: best, 2: now}, targets=["color"]).verdict == "REJECT"


def test_rounds_on_other_prompts_are_no_best():
    now = outcomes(color=[0] * 5 + [1] * 55)
    other = {(f"q{i}", "color"): 1.0 for i in range(60)}
    assert judge(now, now, earlier={1: other}).lines[0].best is None


def test_different_prompts_cannot_be_compared():
    with pytest.raises(ValueError, match="different prompts"):
        judge(outcomes(count=[1]), outcomes(count=[1, 1]))


@pytest.mark.parametrize("wrong", [{"alpha": 0.0}, {"margin": 0.0}, {"margin": 1.5}, {"margins": {"count": -1.0}}])
def test_wrong_settings_are_refused(wrong: dict):
    with pytest.raises(UsageError, match=r"gate\."):
        replace(Gate(), **wrong)


def test_holm_adjusts_by_rank():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


CAPABILITIES = ("color", "count", "text")


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Shares, Shares]:
    """Candidate and incumbent on the same prompts, two pictures of each."""
    keys = [(f"p{i}", c) for c in CAPABILITIES for i in range(draw(st.integers(1, 40)))]
    values = st.lists(st.sampled_from((0.0, 0.5, 1.0)), min_size=len(keys), max_size=len(keys))
    return dict(zip(keys, draw(values))), dict(zip(keys, draw(values)))


@settings(max_examples=25, deadline=None)
@given(pairs(), st.sets(st.sampled_from(CAPABILITIES)))
def test_the_verdict_follows_from_the_lines(pair: tuple[Shares, Shares], targets: set[str]):
    verdict = judge(*pair, targets=targets)
    found = {line.check: line.outcome for line in verdict.lines}
    wins = {c for c, o in found.items() if o == "win" and (not targets or c in targets)}
    lost, unclear = ("regression" in found.values(), "unclear" in found.values())
    assert verdict.verdict == ("REJECT" if lost else "PROMOTE" if wins and not unclear else "HOLD")
    assert set(found) == set(CAPABILITIES)
    for line in verdict.lines:
        change = line.candidate - line.incumbent
        assert line.low <= change + 1e-9 and change <= line.high + 1e-9 and 0 <= line.p_value <= 1
        assert (line.low > 0.1) == (line.outcome == "regression")
        assert line.outcome != "tie" or line.high <= 0.1
        assert (line.needed is not None) >= (line.outcome == "unclear")


@settings(max_examples=25, deadline=None)
@given(pairs())
def test_swapping_the_arms_mirrors_the_intervals_and_equals_never_win(pair: tuple[Shares, Shares]):
    for there, back in zip(judge(*pair).lines, judge(*pair[::-1]).lines):
        assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
        assert (there.fixed, there.broken) == (back.broken, back.fixed)
        assert not there.outcome == back.outcome == "win"
    same = judge(pair[0], pair[0], targets=["count"])
    assert same.verdict == "HOLD" and {x.outcome for x in same.lines} <= {"tie", "unclear"}


ORDER = ("regression", "unclear", "tie", "win")


@settings(max_examples=25, deadline=None)
@given(pairs(), st.integers(0, 1000))
def test_passing_one_prompt_more_never_makes_an_outcome_worse(pair: tuple[Shares, Shares], which: int):
    candidate, incumbent = pair
    better = candidate | {sorted(candidate)[which % len(candidate)]: 1.0}
    lines = zip(judge(candidate, incumbent).lines, judge(better, incumbent).lines)
    assert all(ORDER.index(old.outcome) <= ORDER.index(new.outcome) for old, new in lines)


@pytest.mark.parametrize("lost", CAPABILITIES)
def test_a_loss_in_any_capability_blocks_promotion(lost: str):
    old = outcomes(**{c: [c == lost] * 12 for c in CAPABILITIES})
    new = outcomes(**{c: [c != lost] * 12 for c in CAPABILITIES})
    verdict = judge(new, old, targets=[c for c in CAPABILITIES if c != lost])
    assert verdict.verdict == "REJECT" and verdict.reason.startswith(f"loss beyond the margin in {lost} (")
