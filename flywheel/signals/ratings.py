"""Bradley–Terry ratings of battles, as FastChat's arena computes them: maximum likelihood, a tie is half a win.

P(a beats b) = 1 / (1 + 10^((r_b − r_a) / 400)), with ratings centred on 1000. Style covariates enter the regression as
standardised (a − b) / (a + b + 1), with the L2 penalty of FastChat's style control. Intervals are bootstrapped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flywheel.core.errors import UsageError

SCALE, BASE, CENTRE = 400.0, 10.0, 1000.0
STYLE_PENALTY = 0.5  # as in FastChat's style control, for a loss that counts each battle once
OUTCOMES = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5, "tie (bothbad)": 0.5}


@dataclass(frozen=True)
class Battles:
    """Arrays of N battles. `pairs` int [N, 2] index `models`; `outcomes` [N]: 1 a wins, 0 b wins, ½ a tie."""

    models: tuple[str, ...]
    pairs: np.ndarray
    outcomes: np.ndarray
    covariates: tuple[str, ...]
    styles: np.ndarray  # float [N, C], standardised

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], *, styles: bool = False) -> Battles:
        """Battles from ledger rows. Errors: `UsageError` if battles have different covariates."""
        models = tuple(sorted({r[k] for r in rows for k in ("model_a", "model_b")}))
        index = {m: n for n, m in enumerate(models)}
        pairs = np.array([[index[r["model_a"]], index[r["model_b"]]] for r in rows]).reshape(-1, 2)
        outcomes = np.array([OUTCOMES[r["winner"]] for r in rows])
        names, values = _styles(rows) if styles else ((), np.zeros((len(rows), 0)))
        return cls(models, pairs, outcomes, names, values)


@dataclass(frozen=True)
class Rating:
    """One model's rating with its 95 % interval, and its number of battles."""

    model: str
    rating: float
    low: float
    high: float
    battles: int


def rate(battles: Battles, *, rounds: int = 200, seed: int = 0) -> tuple[list[Rating], dict[str, float]]:
    """Ratings, best first, and the style coefficients (log-odds per standard deviation).

    Errors: `UsageError` if a model never won or never lost against the rest, because no finite rating exists then.
    """
    _require_connected(battles)
    rows, weights = _distinct(battles)
    penalty = STYLE_PENALTY if battles.covariates else 0.0
    fitted = _fit(battles, rows, weights[None], penalty)[0]
    total = weights.sum()
    draws = np.random.default_rng(seed).multinomial(int(total), weights / total, size=rounds).astype(float)
    boot = _fit(battles, rows, draws, penalty or 1e-3)  # a resample may leave a model without a win
    n = len(battles.models)
    low, high = np.quantile(_scaled(boot[:, :n]), [0.025, 0.975], axis=0)
    ratings = _scaled(fitted[:n])
    counts = np.bincount(battles.pairs.ravel(), minlength=n)
    rated = [
        Rating(model, float(rating), float(from_), float(to), int(count))
        for model, rating, from_, to, count in zip(battles.models, ratings, low, high, counts)
    ]
    return sorted(rated, key=lambda r: -r.rating), dict(zip(battles.covariates, map(float, fitted[n:])))


def _scaled(strengths: np.ndarray) -> np.ndarray:
    """Natural log-odds → ratings on the Elo scale, centred."""
    centred = strengths - strengths.mean(-1, keepdims=True)
    return centred / np.log(BASE) * SCALE + CENTRE


def _distinct(battles: Battles) -> tuple[np.ndarray, np.ndarray]:
    """The row of each distinct battle and its count: resampling the counts is the same as resampling battles."""
    table = np.column_stack([battles.pairs, battles.outcomes, battles.styles])
    _, rows, counts = np.unique(table, axis=0, return_index=True, return_counts=True)
    return rows, counts.astype(float)


def _fit(battles: Battles, rows: np.ndarray, weights: np.ndarray, penalty: float) -> np.ndarray:
    """Newton's method on all weightings [B, R] at once → log-odds [B, models + covariates].

    The penalty is ½·penalty·|parameters|² with ratings in units of `BASE`, as FastChat has it; 0 leaves the mean open,
    and the least-norm step closes it.
    """
    design = np.zeros((len(rows), len(battles.models)))
    design[np.arange(len(rows)), battles.pairs[rows, 0]] = 1.0
    design[np.arange(len(rows)), battles.pairs[rows, 1]] = -1.0
    design = np.column_stack([design, battles.styles[rows]])
    wanted = battles.outcomes[rows]
    ridge = np.full(design.shape[1], penalty)
    ridge[: len(battles.models)] /= np.log(BASE) ** 2
    beta = np.zeros((len(weights), design.shape[1]))
    for _ in range(50):
        chance = 1 / (1 + np.exp(-(beta @ design.T)))
        gradient = (weights * (wanted - chance)) @ design - ridge * beta
        curve = weights * chance * (1 - chance)
        hessian = np.einsum("br,ri,rj->bij", curve, design, design, optimize=True) + np.diag(ridge)
        step = np.einsum("bij,bj->bi", np.linalg.pinv(hessian, hermitian=True), gradient)
        beta += np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            break
    return beta


def _require_connected(battles: Battles) -> None:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    a, b = battles.pairs.T
    scored = (np.concatenate([a[battles.outcomes > 0], b[battles.outcomes < 1]]),) + (
        np.concatenate([b[battles.outcomes > 0], a[battles.outcomes < 1]]),
    )
    n = len(battles.models)
    graph = coo_array((np.ones(len(scored[0])), scored), shape=(n, n))
    count, labels = connected_components(graph, directed=True, connection="strong")
    if count > 1:
        smallest = np.bincount(labels).argmin()
        names = ", ".join(m for m, label in zip(battles.models, labels) if label == smallest)
        raise UsageError(f"no finite rating: {names} always won, always lost or never met the rest; add battles")


def _styles(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], np.ndarray]:
    a, b = ([json.loads(r[k]) for r in rows] for k in ("style_a", "style_b"))
    names = tuple(sorted(a[0])) if a else ()
    if any(tuple(sorted(s)) != names for s in (*a, *b)):
        raise UsageError(f"battles differ in their style covariates: give {', '.join(names)} for each")
    left, right = (np.array([[s[k] for k in names] for s in side], dtype=float) for side in (a, b))
    difference = (left - right) / (left + right + 1)
    spread = difference.std(0)
    return names, (difference - difference.mean(0)) / np.where(spread > 0, spread, 1)
