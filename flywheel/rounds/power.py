"""What a suite can show: the smallest change of a target that the gate promotes, by simulating the gate. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flywheel.presets import Gate
from flywheel.rounds import paired
from flywheel.rounds.gate import Key, best_of, by_capability, failing, most
from flywheel.rounds.paired import Floats
from flywheel.signals.results import Results

POWER = 0.95  # planned for, so that 80 % of rounds are promoted although the incumbent is known by its pictures only
DRAWS = 400  # simulated candidates
_SHOWN = (
    POWER + 1.645 * (POWER * (1 - POWER) / DRAWS) ** 0.5
)  # share of them that shows the power, with 95 % confidence
_HALVINGS = 6  # of the interval that holds the smallest share of repaired failures


@dataclass(frozen=True)
class Target:
    """The smallest fall of a capability's failure rate that is promoted in 80 % of rounds, if nothing else changes.

    change: in shares of pictures; None if not even a repair of all failures reaches 80 %. power: promoted rounds if all
    failures are repaired.
    """

    capability: str
    prompts: int
    pictures: int
    failure_rate: float
    change: float | None
    power: float


@dataclass(frozen=True)
class Guard:
    """How often the gate rules out a loss of the margin in a capability that did not change.

    needed: prompts that would do so in 80 % of rounds; None if no number would.
    """

    capability: str
    prompts: int
    margin: float
    power: float
    needed: int | None


@dataclass(frozen=True)
class Outlook:
    """What the suite can show about the next candidate."""

    targets: tuple[Target, ...]
    guards: tuple[Guard, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def outlook(
    incumbent: Results,
    *,
    earlier: Mapping[int, Results] | None = None,
    targets: Collection[str] = (),
    policy: Gate = Gate(),
    pictures: int = 1,
) -> Outlook:
    """Simulate candidates on the incumbent's prompts, and the gate's tests on them.

    targets: all capabilities, if empty. A prompt's chance to fail is taken from the incumbent's pictures of it, drawn
    towards the capability's failure rate as far as pictures of one prompt disagree; with one picture per prompt, all
    prompts of a capability are taken to be equally hard, which overstates the noise. Training moves prompts as well,
    which no suite can tell beforehand.
    """
    names = by_capability(incumbent)
    dice = np.random.default_rng(0)
    unchanged = {c: dice.binomial(pictures, q) for c, q in _chances(incumbent, names, pictures, dice).items()}
    guards, ruled_out = list[Guard](), dict[str, NDArray[np.bool_]]()
    for c, keys in names.items():
        references = [failing(incumbent, keys)]
        if best := best_of(earlier or {}, keys, float(references[0].mean())):
            references.append(failing(best[1], keys))
        tallies = [paired.tally(unchanged[c] / pictures - r) for r in references]
        margin = policy.margin_of(c)
        ruled_out[c] = np.all([paired.p_at_least(*t, margin) <= policy.alpha for t in tallies], axis=0)
        needed = most(paired.prompts_needed(v, counts.mean(axis=0), margin, policy.alpha) for v, counts in tallies)
        guards.append(Guard(c, len(keys), margin, float(ruled_out[c].mean()), needed))
    found = []
    for c in [c for c in names if c in targets or not targets]:
        others = np.all([np.ones(DRAWS, bool), *(ok for other, ok in ruled_out.items() if other != c)], axis=0)
        old, alpha = failing(incumbent, names[c]), policy.alpha / len(names)
        change, power = _smallest(old, unchanged[c], pictures, alpha, others)
        found.append(Target(c, len(old), pictures, float(old.mean()), change, power))
    return Outlook(tuple(found), tuple(guards))


def _chances(
    results: Results, names: Mapping[str, list[Key]], pictures: int, dice: np.random.Generator
) -> dict[str, Floats]:
    """Plausible chances that a picture fails, by capability, [DRAWS, prompts].

    The incumbent's own luck is part of it: each draw has a rate of its own, as sure as the pictures make it, and draws
    its prompts around it (beta-binomial). The correlation of a prompt's pictures is estimated over all capabilities, as
    1 less the share of the variance that lies within prompts.
    """
    shares = {c: failing(results, keys) for c, keys in names.items()}
    within = sum(float((x * (1 - x)).sum()) for x in shares.values()) * pictures / max(1, pictures - 1)
    total = sum(float(x.mean() * (1 - x.mean())) * len(x) for x in shares.values())
    alike = min(max(1 - within / total, 0.0), 0.99) if pictures > 1 and total else 0.0
    chances = {}
    for c, x in shares.items():
        known = len(x) * pictures / (1 + (pictures - 1) * alike)  # independent pictures that are worth as much
        rate = dice.beta(x.mean() * known + 0.5, (1 - x.mean()) * known + 0.5, (DRAWS, 1))
        if alike:
            prior = (1 - alike) / alike  # pictures that the rate is worth for each prompt
            chances[c] = dice.beta(x * pictures + prior * rate, (1 - x) * pictures + prior * (1 - rate))
        else:
            chances[c] = np.repeat(rate, len(x), axis=1)
    return chances


def _smallest(
    old: Floats, unchanged: NDArray[np.int64], pictures: int, alpha: float, others: NDArray[np.bool_]
) -> tuple[float | None, float]:
    """(smallest fall of the failure rate that is promoted with `POWER`, power of a full repair)."""

    def power(repaired: float) -> float:
        failures = np.random.default_rng(1).binomial(unchanged, 1 - repaired)
        return float((others & (paired.p_at_least(*paired.tally(failures / pictures - old), 0.0) <= alpha)).mean())

    full = power(1.0)
    if full < _SHOWN:
        return None, full
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= _SHOWN else (middle, high)
    return high * float(unchanged.mean()) / pictures, full
