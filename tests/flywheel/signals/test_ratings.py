"""Ratings equal FastChat's, and their intervals cover the truth."""

import json

import numpy as np
import pytest

from flywheel.core.errors import UsageError
from flywheel.signals.ratings import Battles, rate
from tests.flywheel.signals.test_arena import world


def fastchat(rows: list[dict], features: np.ndarray | None = None) -> dict[str, float]:
    """Its published formulation: each battle twice, ±log 10 per model, a tie is one win and one loss."""
    from sklearn.linear_model import LogisticRegression

    models = sorted({r[k] for r in rows for k in ("model_a", "model_b")})
    design = np.zeros((len(rows), len(models)))
    for n, r in enumerate(rows):
        design[n, models.index(r["model_a"])] = np.log(10)
        design[n, models.index(r["model_b"])] = -np.log(10)
    if features is not None:
        design = np.column_stack([design, features])
    won = np.array([r["winner"] == "model_a" for r in rows], dtype=float)
    tie = np.array([r["winner"].startswith("tie") for r in rows])
    labels = np.concatenate([np.where(tie, 1, won), np.where(tie, 0, won)])
    penalty = {"C": np.inf} if features is None else {"C": 1.0}
    fitted = LogisticRegression(fit_intercept=False, tol=1e-9, max_iter=10_000, **penalty)
    strengths = fitted.fit(np.vstack([design, design]), labels).coef_[0][: len(models)]
    scaled = 400 * strengths
    return dict(zip(models, scaled - scaled.mean() + 1000))


def test_ratings_equal_fastchat():
    rows = world(3000)
    ratings, _ = rate(Battles.of(rows), rounds=20)
    wanted = fastchat(rows)
    assert {r.model: r.rating for r in ratings} == pytest.approx(wanted, abs=0.05)
    assert [r.model for r in ratings] == ["m4", "m3", "m2", "m1", "m0"]


def test_style_control_equals_fastchat_and_takes_the_sway_out():
    rows = world(3000, styles=True)
    arrays = Battles.of(rows, styles=True)
    ratings, coefficients = rate(arrays, rounds=5)
    assert {r.model: r.rating for r in ratings} == pytest.approx(fastchat(rows, arrays.styles), abs=0.05)
    a, b = (np.array([json.loads(r[k])["size"] for r in rows], dtype=float) for k in ("style_a", "style_b"))
    raw = (a - b) / (a + b + 1)
    assert arrays.styles[:, 0] == pytest.approx((raw - raw.mean()) / raw.std())
    assert coefficients["size"] > 0.5 and abs(coefficients["text"]) < 0.2


def test_bootstrap_intervals_cover_the_truth_and_shrink_with_battles():
    truth = np.arange(5) * 0.5 / np.log(10) * 400 * 0.79  # a fifth of the battles are ties: strengths shrink
    few, many = (rate(Battles.of(world(n, seed=3)), rounds=200)[0] for n in (300, 4800))
    width = [np.mean([r.high - r.low for r in ratings]) for ratings in (few, many)]
    assert width[0] / width[1] == pytest.approx(4, rel=0.35)  # √16
    centred = truth - truth.mean() + 1000
    assert sum(r.low <= centred[int(r.model[1])] <= r.high for r in many) >= 4
    assert rate(Battles.of(world(300, seed=3)), rounds=200)[0] == few  # same seed, same intervals


@pytest.mark.parametrize(
    ("winner", "why"), [("new", "always won"), ("m0", "always lost"), ("tie", ""), (None, "never met the rest")]
)
def test_a_model_with_one_battle_leaves_the_other_ratings_alone(winner: str | None, why: str):
    rows = world(600)
    others = {r.model: r for r in rate(Battles.of(rows))[0]}
    sides = {"model_a": "new", "model_b": "m0" if winner else "newer"}
    won = next((k for k, v in sides.items() if v == winner), "tie" if winner == "tie" else "model_a")
    ratings, _ = rate(Battles.of([*rows, rows[0] | sides | {"winner": won}]))
    new = next(r for r in ratings if r.model == "new")
    assert new.battles == 1 and new.unrated == why
    if why:
        kept = [r for r in ratings if not r.unrated]
        assert new.rating is None and ratings[len(kept)].unrated  # unrated models come last
        assert [r.rating for r in kept] == [others[r.model].rating for r in kept] and len(kept) == len(others)


def test_two_models_of_which_one_always_won_have_no_rating():
    rows = [r | {"winner": "model_a"} for r in world(200) if (r["model_a"], r["model_b"]) == ("m3", "m4")]
    with pytest.raises(UsageError, match="always won"):
        rate(Battles.of(rows))


def test_no_battles_have_no_ratings():
    with pytest.raises(UsageError, match="no finite rating"):
        rate(Battles.of([]))
