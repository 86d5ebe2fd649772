"""Bradley–Terry ratings of battles, as FastChat's arena computes them: maximum likelihood, a tie is half a win.

P(a beats b) = 1 / (1 + 10^((r_b − r_a) / 400)), with ratings centred on 1000. Style covariates enter the regression as
standardised (a − b) / (a + b + 1), with the L2 penalty of FastChat's style control. Intervals are bootstrapped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
        pairs = np.array([[index[r["model_a"]], index[r["model_b"]]] for r in rows], dtype=int).reshape(-1, 2)
        outcomes = np.array([OUTCOMES[r["winner"]] for r in rows])
        names, values = _styles(rows) if styles else ((), np.zeros((len(rows), 0)))
        return cls(models, pairs, outcomes, names, values)


@dataclass(frozen=True)
class Rating:
    """One model's rating with its 95 % interval, and its battles; null where there is no finite rating, and why."""

    model: str
    rating: float | None
    low: float | None
    high: float | None
    battles: int
    unrated: str = ""


def rate(battles: Battles, *, rounds: int = 200, seed: int = 0) -> tuple[list[Rating], dict[str, float]]:
    """Ratings, best first, and the style coefficients (log-odds per standard deviation).

    A model that never won, never lost or never met the rest has no finite rating: it comes last, and the rest is rated
    without its battles. Errors: `UsageError` if no two models can be compared.
    """
    counts = dict(zip(battles.models, np.bincount(battles.pairs.ravel(), minlength=len(battles.models)).tolist()))
    battles, left_out = _comparable(battles)
    rows, weights = _distinct(battles)
    penalty = STYLE_PENALTY if battles.covariates else 0.0
    fitted = _fit(battles, rows, weights[None], penalty)[0]
    total = weights.sum()
    draws = np.random.default_rng(seed).multinomial(int(total), weights / total, size=rounds).astype(float)
    boot = _fit(battles, rows, draws, penalty or 1e-3)  # a resample may leave a model without a win
    n = len(battles.models)
    low, high = np.quantile(_scaled(boot[:, :n]), [0.025, 0.975], axis=0)
    ratings = _scaled(fitted[:n])
    order = np.argsort(-ratings, kind="stable")
    rated = [
        Rating(battles.models[i], float(ratings[i]), float(low[i]), float(high[i]), counts[battles.models[i]])
        for i in order
    ]
    unrated = [Rating(model, None, None, None, counts[model], why) for model, why in left_out.items()]
    return [*rated, *unrated], dict(zip(battles.covariates, map(float, fitted[n:])))


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


def _comparable(battles: Battles) -> tuple[Battles, dict[str, str]]:
    """The battles of the largest group of models that can be compared, and why each other model is not in it.

    Each model of the group won and lost, directly or through others, against each other one. Errors: `UsageError` if
    there is no such group of two.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    (a, b), outcomes = battles.pairs.T, battles.outcomes
    winners = np.concatenate([a[outcomes > 0], b[outcomes < 1]])
    losers = np.concatenate([b[outcomes > 0], a[outcomes < 1]])
    n = len(battles.models)
    graph = coo_array((np.ones(len(winners)), (winners, losers)), shape=(n, n))
    _, group = connected_components(graph, directed=True, connection="strong")
    inside = np.bincount(group[a][group[a] == group[b]], minlength=n)  # battles of each group
    if not inside.any():
        raise UsageError("no finite rating: of any two models one always won or they never met; add battles")
    sizes = np.bincount(group, minlength=n)
    best = max(range(n), key=lambda g: (sizes[g], inside[g]))
    rated = group == best
    left_out = {}
    for m in np.flatnonzero(~rated):
        won, lost = rated[losers[winners == m]].any(), rated[winners[losers == m]].any()
        left_out[battles.models[m]] = "always won" if won else "always lost" if lost else "never met the rest"
    place = np.cumsum(rated) - 1
    chosen = rated[a] & rated[b]
    models = tuple(m for m, kept in zip(battles.models, rated) if kept)
    kept = replace(
        battles,
        models=models,
        pairs=place[battles.pairs[chosen]],
        outcomes=outcomes[chosen],
        styles=battles.styles[chosen],
    )
    return kept, left_out


def _styles(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], np.ndarray]:
    a, b = ([json.loads(r[k]) for r in rows] for k in ("style_a", "style_b"))
    names = tuple(sorted(a[0])) if a else ()
    if any(tuple(sorted(s)) != names for s in (*a, *b)):
        raise UsageError(f"battles differ in their style covariates: give {', '.join(names)} for each")
    left, right = (np.array([[s[k] for k in names] for s in side], dtype=float) for side in (a, b))
    difference = (left - right) / (left + right + 1)
    spread = difference.std(0)
    return names, (difference - difference.mean(0)) / np.where(spread > 0, spread, 1)
