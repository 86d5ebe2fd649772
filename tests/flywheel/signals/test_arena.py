"""Ratings equal the logistic regression that FastChat's arena publishes; votes count once."""

import json
from pathlib import Path

import numpy as np
import pytest

from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.arena import battles, import_battles
from flywheel.signals.ratings import Battles, rate


def world(count: int, *, styles: bool = False, seed: int = 0) -> list[dict]:
    """Battles of five models whose true strengths are 0, 0.5, … 2 (log-odds); a longer picture sways the judge."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        a, b = rng.choice(5, 2, replace=False)
        sizes = rng.integers(1, 50, 2)
        logit = 0.5 * (a - b) + (2.0 * (sizes[0] - sizes[1]) / sizes.sum() if styles else 0)
        winner = "tie" if rng.random() < 0.2 else ("model_a" if rng.random() < 1 / (1 + np.exp(-logit)) else "model_b")
        row = {"battle_id": str(n), "model_a": f"m{a}", "model_b": f"m{b}", "winner": winner, "capability": "text"}
        style = {f"style_{k}": json.dumps({"size": int(s), "text": int(s % 7)}) for k, s in zip("ab", sizes)}
        rows.append(row | (style if styles else {"style_a": None, "style_b": None}))
    return rows


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
    found, _ = rate(Battles.of(rows), rounds=20)
    wanted = fastchat(rows)
    assert {r.model: r.rating for r in found} == pytest.approx(wanted, abs=0.05)
    assert [r.model for r in found] == ["m4", "m3", "m2", "m1", "m0"]


def test_style_control_equals_fastchat_and_takes_the_sway_out():
    rows = world(3000, styles=True)
    arrays = Battles.of(rows, styles=True)
    found, coefficients = rate(arrays, rounds=5)
    assert {r.model: r.rating for r in found} == pytest.approx(fastchat(rows, arrays.styles), abs=0.05)
    a, b = (np.array([json.loads(r[k])["size"] for r in rows], dtype=float) for k in ("style_a", "style_b"))
    raw = (a - b) / (a + b + 1)
    assert arrays.styles[:, 0] == pytest.approx((raw - raw.mean()) / raw.std())
    assert coefficients["size"] > 0.5 and abs(coefficients["text"]) < 0.2


def test_bootstrap_intervals_cover_the_truth_and_shrink_with_battles():
    truth = np.arange(5) * 0.5 / np.log(10) * 400 * 0.79  # a fifth of the battles are ties: strengths shrink
    few, many = (rate(Battles.of(world(n, seed=3)), rounds=200)[0] for n in (300, 4800))
    width = [np.mean([r.high - r.low for r in found]) for found in (few, many)]
    assert width[0] / width[1] == pytest.approx(4, rel=0.35)  # √16
    centred = truth - truth.mean() + 1000
    assert sum(r.low <= centred[int(r.model[1])] <= r.high for r in many) >= 4
    assert rate(Battles.of(world(300, seed=3)), rounds=200)[0] == few  # same seed, same intervals


def test_a_model_that_never_lost_has_no_finite_rating():
    rows = [r | {"winner": "model_a" if r["model_a"] == "m4" else "model_b"} for r in world(200) if "m4" in str(r)]
    with pytest.raises(UsageError, match="always won"):
        rate(Battles.of(rows))


def test_imported_votes_count_once_and_lost_ones_are_signals(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    vote = {"battle_id": "1", "model_a": "ours", "model_b": "theirs", "winner": "model_b", "prompt": "a cat"}
    votes = [vote | {"capability": "typography"}, vote | {"battle_id": "2", "winner": "model_a"}, vote]
    votes += [vote | {"battle_id": "3", "winner": "tie (bothbad)"}, vote | {"battle_id": "4", "winner": "tie"}]
    votes += [vote | {"model_b": "ours", "battle_id": "5"}, vote | {"battle_id": "6", "winner": "ours"}]
    path = tmp_path / "b.jsonl"
    path.write_text("\n".join(map(json.dumps, votes)))
    found = import_battles(workspace, path, model="ours")
    assert (found.imported, found.duplicates, found.quarantined) == (4, 1, 2)
    again = import_battles(workspace, path, model="ours")
    assert (again.imported, again.duplicates) == (0, 5)
    assert len(Ledger(workspace, "battles").rows()) == 4
    signals = Ledger(workspace, "signals").rows()
    assert sorted(json.loads(s["evidence"])["battle_id"] for s in signals) == ["1", "3"]
    assert {s["capability"] for s in signals} == {"typography", None} and not any(s["passed"] for s in signals)
    assert set(battles(Ledger(workspace, "battles").rows())) == {"overall", "typography"}
