"""The paired test equals exact tests where there are some, and keeps its level where there are none."""

import numpy as np
import pytest
from scipy.stats import binom, multinomial

from flywheel.rounds.paired import p_at_least, prompts_needed, tally, upper

SIGNS = np.array([-1.0, 0.0, 1.0])


def p(values: list[float], counts: list[float], bound: float) -> float:
    return float(p_at_least(np.array(values), np.array(counts, float), bound))


@pytest.mark.parametrize(
    "fixed, broken, same", [(10, 0, 2), (5, 1, 10), (3, 3, 24), (300, 250, 500), (0, 5, 25), (1, 0, 0)]
)
def test_one_picture_and_no_margin_is_mcnemars_exact_test(fixed: int, broken: int, same: int):
    exact = binom.cdf(broken, fixed + broken, 0.5)
    assert p([-1, 0, 1], [fixed, same, broken], 0.0) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("broken, n, bound", [(0, 30, 0.1), (2, 30, 0.2), (1, 5, 0.3), (0, 1, 0.5), (200, 4000, 0.056)])
def test_losses_alone_are_a_binomial_test(broken: int, n: int, bound: float):
    assert p([0, 1], [n - broken, broken], bound) == pytest.approx(binom.cdf(broken, n, bound), abs=1e-9)


@pytest.mark.parametrize("n", [1, 3, 12, 40])
@pytest.mark.parametrize("margin", [0.05, 0.1, 0.2])
def test_the_level_holds_for_every_share_of_repairs(n: int, margin: float):
    """All samples of n prompts with one picture, all truths whose mean loss is the margin."""
    fixed, broken = (x.ravel() for x in np.indices((n + 1, n + 1)))
    tables = np.stack([fixed, n - fixed - broken, broken], axis=1)[fixed + broken <= n].astype(float)
    passed = p_at_least(SIGNS, tables, margin) <= 0.05
    for repaired in np.linspace(0, (1 - margin) / 2, 12):
        truth = [repaired, max(0.0, 1 - 2 * repaired - margin), repaired + margin]
        assert multinomial.pmf(tables, n, truth)[passed].sum() <= 0.05


@pytest.mark.parametrize("spread", [0.02, 0.5, 50.0])  # small: pictures of a prompt agree
def test_the_level_holds_for_dependent_pictures(spread: float):
    dice, n, pictures, margin, draws = np.random.default_rng(0), 20, 4, 0.1, 4000
    before = dice.beta(0.2 * spread, 0.8 * spread, (draws, n))
    after = before + (1 - before) * margin / 0.8
    old, new = (dice.binomial(pictures, rate) for rate in (before, after))
    values = np.arange(-pictures, pictures + 1) / pictures
    tables = ((new - old)[..., None] == np.arange(-pictures, pictures + 1)).sum(axis=1).astype(float)
    assert (p_at_least(values, tables, margin) <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


def test_the_limit_is_where_the_test_turns():
    values, counts = tally([0.25, 0, 0, -0.5, 0, 0.25, 0, 0])
    limit = upper(values, counts, 0.05)
    assert p_at_least(values, counts, limit) == pytest.approx(0.05, abs=1e-6) and limit > 0
    assert upper(*tally([0.0] * 30), 0.05) == pytest.approx(1 - 0.05 ** (1 / 30))


def test_the_needed_number_of_prompts_has_the_power():
    assert prompts_needed(*tally([0.0] * 3), 0.1, 0.05) == 29, "the least number that can rule out 10 %"
    dice, margin = np.random.default_rng(0), 0.1
    n = prompts_needed(SIGNS, np.array([3.0, 24.0, 3.0]), margin, 0.05)
    tables = dice.multinomial(n, [0.1, 0.8, 0.1], size=2000).astype(float)
    assert (p_at_least(SIGNS, tables, margin) <= 0.05).mean() == pytest.approx(0.8, abs=0.04)
    assert prompts_needed(SIGNS, np.array([1.0, 0.0, 1.0]), 1e-4, 0.05) is None
