"""Figures of `benchmarks.flywheel_gain` from counted failures: net effects, their ratios, and intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ARMS = ("targeted", "balanced", "shuffled", "proportional", "none")
INCUMBENT = "incumbent"
BOOTSTRAPS = 10_000
MOST = 99.0  # a ratio to an arm that removes nothing
Counts = Mapping[str, Mapping[str, tuple[float, float]]]  # {arm or incumbent: {capability: (failures, prompts)}}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One round of one seed. failed: by the suite's judge; second: by another one; unseen: words that nobody teaches.

    The last two count under the name "typography" and are empty where nothing was read.
    """

    seed: int
    round: int
    targets: tuple[str, ...]
    shuffled: tuple[str, ...]
    verdict: str
    failed: Counts
    second: Counts = field(default_factory=dict)
    unseen: Counts = field(default_factory=dict)


def targeted_failures(row: Row, counts: Counts) -> np.ndarray:
    """[incumbent, then each arm]: failures over the capabilities that the round targets, in prompts."""
    return np.array(
        [sum(counts[a][c][0] for c in row.targets if c in counts[a]) for a in (INCUMBENT, *ARMS)], np.float64
    )


def net(failures: np.ndarray) -> np.ndarray:
    """[…, 1 + arms] failures → […, arms − 1] failures that an arm removes beyond those that `none` removes."""
    return failures[..., -1:] - failures[..., 1:-1]


def ratio(numerator: float, denominator: float) -> float:
    """A ratio of net effects; `MOST` where only the numerator is above 0, and 0 where it is not."""
    if numerator <= 0:
        return 0.0
    return MOST if denominator <= 0 else min(MOST, float(numerator / denominator))


def seeds_of(rows: Sequence[Row]) -> list[int]:
    """The seeds, in order."""
    return sorted({r.seed for r in rows})


def draws(count: int) -> np.ndarray:
    """[bootstraps, count] indices of seeds drawn with replacement."""
    return np.random.default_rng(0).integers(0, count, (BOOTSTRAPS, count))


def effects(rows: Sequence[Row], which: str = "failed") -> dict[str, Any]:
    """Pooled net effects of every arm, and the ratios of `targeted` to `balanced` and `proportional`, by one judge.

    Intervals of 95 % come from resampling seeds. Empty if no round targeted a capability that the judge read.
    """
    aimed = [(r, getattr(r, which)) for r in rows if r.targets and getattr(r, which)]
    if not aimed:
        return {}
    seeds = sorted({r.seed for r, _ in aimed})
    totals = np.array([sum(targeted_failures(r, c) for r, c in aimed if r.seed == s) for s in seeds])
    drawn = totals[draws(len(seeds))].sum(axis=1)
    pooled = totals.sum(axis=0)
    shares, spread = net(pooled) / pooled[0], net(drawn) / drawn[:, :1]
    out: dict[str, Any] = {f"net_{arm}": interval(float(shares[n]), spread[:, n]) for n, arm in enumerate(ARMS[:-1])}
    for name, arm in (("gain_vs_balanced", "balanced"), ("gain_vs_untargeted", "proportional")):
        n = ARMS.index(arm)
        out[name] = interval(ratio(shares[0], shares[n]), [ratio(d[0], d[n]) for d in spread])
    return out


def by_round(rows: Sequence[Row]) -> list[float] | None:
    """Mean over seeds and rounds of `targeted`'s net share of `none`'s failures, over that of `balanced`; interval."""
    aimed = [r for r in rows if r.targets]
    if not aimed:
        return None
    seeds = seeds_of(aimed)
    shares = np.array([np.mean([_share(r) for r in aimed if r.seed == s], axis=0) for s in seeds])
    drawn = shares[draws(len(seeds))].mean(axis=1)
    mean = shares.mean(axis=0)
    return interval(ratio(mean[0], mean[1]), [ratio(d[0], d[1]) for d in drawn])


def _share(row: Row) -> np.ndarray:
    """[arms − 1] net effects as shares of what `none` leaves failing; 0 where it leaves nothing."""
    failures = targeted_failures(row, row.failed)
    return net(failures) / failures[-1] if failures[-1] else np.zeros(len(ARMS) - 1)


def others(rows: Sequence[Row], margin: float) -> dict[str, Any]:
    """Change of the failure rate, `targeted` − incumbent, of every capability in the rounds that do not target it.

    A capability is worse if the interval over seeds lies above 0, and not shown to be as good if it reaches `margin`.
    """
    changes: dict[str, list[float]] = {}
    for capability in sorted({c for r in rows for c in r.failed["targeted"]}):
        mine = [r for r in rows if capability in r.failed["targeted"] and capability not in r.targets]
        seeds = seeds_of(mine)
        if not seeds:
            continue
        totals = np.array([np.sum([_change(r, capability) for r in mine if r.seed == s], axis=0) for s in seeds])
        drawn = totals[draws(len(seeds))].sum(axis=1)
        pooled = totals.sum(axis=0)
        changes[capability] = interval(pooled[0] / pooled[1], drawn[:, 0] / drawn[:, 1])
    worse = [c for c, (_, low, _) in changes.items() if low > 0]
    unclear = [c for c, (_, _, high) in changes.items() if high > margin and c not in worse]
    return {"changes": changes, "capabilities_worse": len(worse), "worse": worse, "not_shown_as_good": unclear}


def _change(row: Row, capability: str) -> tuple[float, float]:
    failures, prompts = row.failed["targeted"][capability]
    return failures - row.failed[INCUMBENT][capability][0], prompts


def interval(value: float, drawn: Any) -> list[float]:
    """[value, lower, upper bound of 95 %], rounded."""
    low, high = np.quantile(np.asarray(drawn, np.float64), (0.025, 0.975))
    return [round(float(x), 4) for x in (value, low, high)]
