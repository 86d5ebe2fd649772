"""Rates of rounds and their intervals."""

import pytest
from scipy.stats import binomtest

from dashboards.rounds import Rate, Round, wilson


@pytest.mark.parametrize(("failed", "n"), [(0, 24), (1, 24), (12, 24), (24, 24), (37, 100), (1, 1)])
def test_wilson_agrees_with_scipy(failed: int, n: int) -> None:
    known = binomtest(failed, n).proportion_ci(method="wilson")
    ours = wilson(failed / n, n)
    assert (ours.low, ours.high) == pytest.approx((known.low, known.high), abs=1e-6)


def test_no_prompts_mean_no_knowledge() -> None:
    assert wilson(0.0, 0) == Rate(0.0, 0.0, 1.0)


def test_mean_rate_weighs_targets_by_their_prompts() -> None:
    result = {
        "targets": ["a", "b"],
        "prompts": {"a": 30, "b": 10, "c": 100},
        "failure_rate": {"a": 0.1, "b": 0.5, "c": 1.0},
        "incumbent_failure_rate": {"a": 0.4, "b": 0.4, "c": 0.0},
    }
    round_ = Round(2, "PROMOTE", "c", "i", "s", None, result)
    assert round_.mean_rate("candidate") == pytest.approx(0.2)
    assert round_.mean_rate("incumbent") == pytest.approx(0.4)
    assert round_.mean_rate("control") is None
    assert round_.change == pytest.approx(-0.5)
