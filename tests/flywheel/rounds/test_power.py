"""What the plan says a suite can show, the gate promotes."""

import numpy as np
import pytest

from flywheel.presets import Gate
from flywheel.rounds.gate import judge
from flywheel.rounds.power import outlook

Shares = dict[tuple[str, str], float]


def suite(failing: dict[str, list[int]], pictures: int) -> Shares:
    return {(f"p{i}", c): 1 - n / pictures for c, counts in failing.items() for i, n in enumerate(counts)}


def test_the_planned_change_is_promoted_and_a_smaller_one_is_not():
    dice, pictures = np.random.default_rng(0), 4
    rates = {"count": dice.beta(6, 4, 120), "color": dice.beta(0.2, 3.8, 120)}
    incumbent = suite({c: list(dice.binomial(pictures, q)) for c, q in rates.items()}, pictures)
    (target,) = outlook(incumbent, targets=["count"], pictures=pictures).targets
    assert target.change is not None and 0.03 < target.change < 0.2 and target.power == 1.0
    promoted = {}
    for part in (0.1, 1.0):
        after = rates | {"count": rates["count"] * (1 - part * target.change / rates["count"].mean())}
        drawn = [suite({c: list(dice.binomial(pictures, q)) for c, q in after.items()}, pictures) for _ in range(40)]
        promoted[part] = np.mean([judge(x, incumbent, targets=["count"]).verdict == "PROMOTE" for x in drawn])
    assert promoted[1.0] > 0.6 > 0.4 > promoted[0.1]


def test_a_suite_that_cannot_rule_out_a_loss_shows_no_change_and_says_where():
    shown = outlook(suite({"count": [1] * 60, "identity": [0] * 3}, 1), targets=["count"])
    assert [t.change for t in shown.targets] == [None] and shown.targets[0].power == 0
    guard = next(g for g in shown.guards if g.capability == "identity")
    assert guard.power == 0 and guard.needed is not None and guard.needed > 29
    free = outlook(
        suite({"count": [1] * 60, "identity": [0] * 3}, 1), targets=["count"], policy=Gate(margins={"identity": 1})
    )
    assert free.targets[0].change is not None and free.targets[0].change == pytest.approx(0.15, abs=0.08)


def test_a_lucky_best_is_harder_to_match():
    now, best = suite({"count": [1] * 30 + [0] * 90}, 1), suite({"count": [1] * 18 + [0] * 102}, 1)
    alone, against = (outlook(now, earlier=e).guards[0].power for e in ({}, {1: best}))
    assert against < alone


def test_without_targets_every_capability_may_win_and_the_answer_is_always_the_same():
    incumbent = suite({"count": [1, 0] * 30, "color": [0] * 60}, 1)
    shown = outlook(incumbent)
    assert [t.capability for t in shown.targets] == ["color", "count"] and shown == outlook(incumbent)
    assert shown.targets[0].change is None, "nothing fails, so nothing can improve"
