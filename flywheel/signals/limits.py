"""Limits of checks, fitted on pictures that no suite holds: between what true pictures and what nulls reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from flywheel.core.scorer import Item
from flywheel.signals import nulls
from flywheel.signals.judging import Verifiers, judge_images
from flywheel.signals.nulls import Trial

TAIL = 0.02  # share of true pictures, and of nulls, that may lie beyond a limit where the two are apart
# Statistics of `curation.scorers.photo`: their natural bounds, the null below them, and the null above them.
_STATISTICS = {
    "contrast": (0.0, 255.0, "flat", ""),
    "entropy": (0.0, 12.0, "flat", ""),
    "roughness": (0.0, 1000.0, "blur", "noise"),
    "seams": (0.0, 1000.0, "", "tile_shuffle"),
    "blocks": (0.0, 1000.0, "", "jpeg"),
}
FITTED = ("imagenet", "alignment")  # verifiers whose least score depends on the pictures' size


def photo_ranges(pictures: Sequence[bytes]) -> dict[str, list[float]]:
    """Range of each statistic in which a photograph lies, and the nulls of quality do not; for a `photo` check."""
    own = _scores(pictures)
    of_null = {n: _scores([nulls.damaged(n, p) for p in pictures]) for n in nulls.DAMAGES}
    ranges = {}
    for name, (low, high, below, above) in _STATISTICS.items():
        if below:
            low = -between([-v for v in own[name]], [-v for v in of_null[below][name]])
        if above:
            high = between(own[name], of_null[above][name])
        ranges[name] = [round(low, 4), round(high, 4)]
    return ranges


def least_scores(trials: Sequence[Trial], *, by: Verifiers) -> dict[str, float]:
    """The score from which a check of each `FITTED` verifier passes, where true pictures and other prompts tell it."""
    judged = [(0, t) for t in trials] + [(1, o) for n in range(len(trials)) for o in nulls.others(trials, n)]
    kept = [(group, _only_fitted(t)) for group, t in judged]
    found: dict[str, tuple[list[float], list[float]]] = {}
    outcomes = judge_images([t.prompt for _, t in kept], [t.picture for _, t in kept], by=by)
    for (group, _), of_prompt in zip(kept, outcomes):
        for outcome in of_prompt:
            if outcome.score is not None:
                found.setdefault(outcome.verifier, ([], []))[group].append(outcome.score)
    # Prompts whose picture does not reach the score are not drawn: where the two overlap, the null decides.
    least = {name: round(between(other, own), 4) for name, (own, other) in found.items() if own and other}
    return {name: score for name, score in least.items() if score > 0}


def between(inner: Sequence[float], outer: Sequence[float]) -> float:
    """A limit above the `inner` values and, where they are apart, half way to the `outer` ones; else close to inner."""
    last, first = np.quantile(inner, 1 - TAIL), np.quantile(outer, TAIL)
    if last >= first:
        return float(last)
    if last * first > 0:  # quantities of many magnitudes
        return float(np.sign(last) * np.sqrt(last * first))
    return float((last + first) / 2)


def _scores(pictures: Sequence[bytes]) -> Mapping[str, list[float]]:
    from curation.scorers import load

    rows = [r for r in load("photo").score([Item(p) for p in pictures]) if isinstance(r, dict)]
    return {name: [r[name] for r in rows] for name in _STATISTICS}


def _only_fitted(trial: Trial) -> Trial:
    checks: tuple[dict[str, Any], ...] = tuple(c for c in trial.prompt.checks if c["verifier"] in FITTED)
    return replace(trial, prompt=replace(trial.prompt, checks=checks))
