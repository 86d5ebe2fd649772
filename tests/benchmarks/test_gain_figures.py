"""The figures of the gain say what was counted, and nothing where nothing was gained."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.gain_figures import ARMS, INCUMBENT, MOST, Row, by_round, effects, others


def row(seed: int, round_: int, failures: dict[str, float], *, targets: tuple[str, ...] = ("typography",)) -> Row:
    """A round in which each arm fails this many of 40 prompts of typography, and the incumbent 40."""
    counted = {INCUMBENT: 40.0, **dict.fromkeys(ARMS, 40.0), **failures}
    failed = {arm: {"typography": (n, 40.0), "count": (8.0, 20.0)} for arm, n in counted.items()}
    return Row(seed=seed, round=round_, targets=targets, shuffled=("count",), verdict="PROMOTE", failed=failed)


GOOD = {"targeted": 10.0, "balanced": 25.0, "proportional": 30.0, "shuffled": 36.0, "none": 35.0}


def test_effects_are_net_of_training_alone_and_pooled() -> None:
    rows = [row(seed, n, GOOD) for seed in range(4) for n in (2, 3)]
    found = effects(rows)
    assert found["net_targeted"] == [0.625, 0.625, 0.625]  # 35 - 10 of 40
    assert found["net_shuffled"][0] == pytest.approx(-0.025)
    assert found["gain_vs_balanced"] == [2.5, 2.5, 2.5] and found["gain_vs_untargeted"] == [5.0, 5.0, 5.0]
    assert by_round(rows) == [2.5, 2.5, 2.5]


def test_swapped_arms_change_the_gain_and_equal_ones_have_none() -> None:
    swapped = GOOD | {"targeted": GOOD["balanced"], "balanced": GOOD["targeted"]}
    assert effects([row(0, 2, swapped)])["gain_vs_balanced"][0] == 0.4
    assert effects([row(0, 2, dict.fromkeys(ARMS, 20.0))])["gain_vs_balanced"][0] == 0.0
    only = {"targeted": 10.0, **dict.fromkeys(ARMS[1:], 35.0)}
    assert effects([row(0, 2, only)])["gain_vs_balanced"][0] == MOST


def test_seeds_that_differ_widen_the_interval() -> None:
    rows = [row(0, 2, GOOD), row(1, 2, GOOD | {"targeted": 30.0})]
    value, low, high = effects(rows)["net_targeted"]
    assert low == 0.125 < value < high == 0.625


def test_rounds_without_a_target_do_not_count_but_their_losses_do() -> None:
    idle = row(0, 2, {}, targets=())
    assert effects([idle]) == {} and by_round([idle]) is None
    worse = dict(idle.failed) | {"targeted": {"typography": (40.0, 40.0), "count": (14.0, 20.0)}}
    found = others([replace(idle, failed=worse), replace(idle, seed=1, failed=worse)], margin=0.1)
    assert found["changes"]["count"] == [0.3, 0.3, 0.3] and found["worse"] == ["count"]
    assert others([idle], margin=0.1)["capabilities_worse"] == 0
