"""Adapts reward weights and prompt mix to held-out prompts: an explicit, pure rule, logged with every step.

Weights: at each check a reward is *held back* when its mean in roll-outs is above that of the check at which its
held-out proxy was best, while the proxy, on the same prompts from the same noise, has fallen since then by more than
`tolerance` standard errors of the paired differences. A reward that is held back has its weight halved; otherwise a
reduced weight doubles again, up to its full value. So no reward keeps rising while its proxy falls.

Mix: a category's share is its base share times the recent share of its groups that teach something (are not flat), but
never under `floor` of the base: prompts that always or never succeed give way to those in between.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

MEMORY = 0.8  # decay per step of the running share of groups that teach


@dataclass(frozen=True)
class Mark:
    """The check at which a reward's proxy was best: mean of the reward in roll-outs, and the proxy by prompt.

    `reward` None: the check was at the start, before any roll-out; any reward counts as risen since then.
    """

    reward: float | None
    proxy: Mapping[str, float]


@dataclass(frozen=True)
class Balance:
    """`factors` multiply reward weights; `teaching`: recent share of a category's groups that were not flat."""

    factors: Mapping[str, float] = field(default_factory=dict)
    teaching: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, Mark] = field(default_factory=dict)

    def factor(self, reward: str) -> float:
        """What the reward's base weight is multiplied with, in (0, 1]."""
        return self.factors.get(reward, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; floats survive the trip to the bit."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Balance:
        """The inverse of `to_dict`."""
        return cls(values["factors"], values["teaching"], {k: Mark(**v) for k, v in values["best"].items()})


def check(
    balance: Balance,
    rewards: Mapping[str, float | None],
    proxies: Mapping[str, Mapping[str, float]],
    tolerance: float,
) -> tuple[Balance, dict[str, str]]:
    """The balance after a check, and a sentence on each reward's decision.

    `rewards`: mean in the roll-outs since the last check; `proxies`: reward → {prompt: proxy}, prompts without a value
    left out. A reward without a proxy keeps its factor.
    """
    factors, best, decided = dict(balance.factors), dict(balance.best), {}
    for name in sorted(rewards):
        proxy = proxies.get(name) or {}
        if not proxy:
            decided[name] = "not measured"
            continue
        change, error = difference(best[name].proxy, proxy) if name in best else (0.0, 0.0)
        if name not in best or change > 0:
            best[name] = Mark(rewards[name], dict(proxy))
        elif change < min(0.0, -tolerance * error) and _risen(best[name].reward, rewards[name]):
            factors[name] = balance.factor(name) / 2
            decided[name] = f"held back: proxy {change:+.4f} ± {error:.4f}, weight × {factors[name]:g}"
            continue
        factors[name] = min(1.0, 2 * balance.factor(name))
        decided[name] = f"kept: proxy {change:+.4f} ± {error:.4f}, weight × {factors[name]:g}"
    return Balance(factors, balance.teaching, best), decided


def _risen(before: float | None, now: float | None) -> bool:
    return now is not None and (before is None or now > before)


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[float, float]:
    """Mean and standard error of the paired differences on the prompts that both have."""
    pairs = [after[k] - before[k] for k in sorted(before.keys() & after.keys())]
    if len(pairs) < 2:
        return (pairs[0] if pairs else 0.0), 0.0
    return statistics.fmean(pairs), statistics.stdev(pairs) / math.sqrt(len(pairs))


def observe(balance: Balance, groups: Sequence[tuple[str, bool]]) -> Balance:
    """Remember which groups of a step, (category, was it kept), taught something."""
    teaching = dict(balance.teaching)
    for name in sorted({c for c, _ in groups}):
        kept_flags = [kept for c, kept in groups if c == name]
        share = sum(kept_flags) / len(kept_flags)
        teaching[name] = MEMORY * teaching.get(name, 1.0) + (1 - MEMORY) * share
    return Balance(balance.factors, teaching, balance.best)


def mix(balance: Balance, base: Mapping[str, float], floor: float) -> dict[str, float]:
    """Share of each prompt category, summing to 1; `base` in proportion."""
    raw = {name: share * max(floor, balance.teaching.get(name, 1.0)) for name, share in base.items()}
    return {name: value / sum(raw.values()) for name, value in raw.items()}
