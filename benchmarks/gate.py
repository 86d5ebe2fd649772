"""Operating curves of the gate, by simulation: how often it promotes what it must not, and what it should.

python benchmarks/gate.py [--draws 2000] [--seed 0] [--margin 0.1]

World. A prompt fails with a probability of its own, from a beta distribution with mean `rate`; `alike` is the
correlation of two pictures of one prompt (0: all prompts are equally hard). Pictures fail independently, given their
prompt. Incumbent and candidate draw pictures of their own. A capability has `prompts` prompts, of `pictures` pictures.

False promotion. The target fails at 0.6 and is repaired completely; another capability truly loses the margin, either
`spread` over all prompts, or by prompts that `break` altogether. Counted is PROMOTE. `false_promote` is the largest
share over all settings. More capabilities only lower it, as each must pass its own test.

Flat. The candidate is as good as the incumbent everywhere, and the target is the capability that failed most in the
incumbent's results, as a round chooses it. `flat_promote` is the largest share of PROMOTE over all settings.

Power. An incumbent is drawn, and `flywheel.rounds.power` plans on it, as `flywheel round plan` does. The candidate's
target truly changes by what the plan names, and nothing else changes. Counted is PROMOTE, over several incumbents of a
setting. `power` is the smallest share over the settings in which the plan names a change on most incumbents; on the
others ("too small") it says that no change would do.

Erosion. Ten rounds, each repairs a third of the target's failures and truly loses a third of the margin elsewhere;
what is promoted becomes the incumbent. `eroded` is the mean true loss at the end, in margins; beside it, the same
without the comparison with the best.

The old rule, for comparison: McNemar's exact two-sided test at 5 % on the first picture of each prompt; any regression
of more than 2 points rejects, a win in the target promotes, everything else is a tie.

The rules are computed for many draws at once; in every setting some draws are judged by `flywheel.rounds.gate.judge`
itself, and a difference stops the benchmark. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from flywheel.presets import Gate
from flywheel.rounds import paired, power
from flywheel.rounds.gate import judge
from flywheel.signals.results import Results

Pictures = NDArray[np.bool_]  # [draws, prompts, pictures]: does it fail?
Floats = NDArray[np.float64]
TARGET_RATE = 0.6  # of the repaired target
INCUMBENTS = 40  # per setting of the power
CHECKED = 4  # draws per setting that `judge` judges too
ROUNDS, CHAINS = 10, 20  # of the erosion


@dataclass(frozen=True)
class Setting:
    """A suite and its capabilities, all alike."""

    prompts: int
    pictures: int
    rate: float
    alike: float
    capabilities: int = 2


def settings(prompts: Sequence[int], pictures: Sequence[int], capabilities: Sequence[int]) -> list[Setting]:
    """All combinations, with rates of 0.1 and 0.4 and correlations of 0 and 0.5."""
    return [Setting(*s) for s in itertools.product(prompts, pictures, (0.1, 0.4), (0.0, 0.5), capabilities)]


def chances(dice: np.random.Generator, shape: tuple[int, ...], rate: float, alike: float) -> Floats:
    """Chance of each prompt to fail."""
    if not alike:
        return np.full(shape, rate)
    strength = (1 - alike) / alike
    return dice.beta(rate * strength, (1 - rate) * strength, shape)


def draw(dice: np.random.Generator, chance: Floats, pictures: int) -> Pictures:
    """Pictures of each prompt."""
    return dice.random((*chance.shape, pictures)) < chance[..., None]


def lose(dice: np.random.Generator, chance: Floats, loss: float, rate: float, shape: str) -> Floats:
    """The chances after a mean loss of `loss`: `spread` over all prompts, or by prompts that `break`."""
    if shape == "spread":
        return chance + (1 - chance) * loss / (1 - rate)
    return np.where(dice.random(chance.shape) < loss / (1 - rate), 1.0, chance)


def new_rule(old: Sequence[Pictures], new: Sequence[Pictures], target: NDArray[np.int64], policy: Gate) -> Pictures:
    """[draws]: is the candidate promoted? old, new: one array per capability; target: its number, per draw."""
    tallies = [paired.tally(b.mean(axis=-1) - a.mean(axis=-1)) for a, b in zip(old, new)]
    p = np.array([paired.p_at_least(*t, 0.0) for t in tallies])
    order = np.argsort(p, axis=0, kind="stable")
    scaled = np.take_along_axis(p, order, 0) * np.arange(len(p), 0, -1)[:, None]
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(scaled, axis=0), 1.0), 0)
    wins = adjusted <= policy.alpha
    safe = np.array([paired.p_at_least(*t, policy.margin) <= policy.alpha for t in tallies])
    return (wins | safe).all(axis=0) & wins[target, np.arange(len(target))]


def old_rule(old: Sequence[Pictures], new: Sequence[Pictures], target: NDArray[np.int64]) -> Pictures:
    """[draws]: does the former gate promote the candidate?"""
    wins, losses = [], []
    for a, b in zip(old, new):
        fixed, broken = (x.sum(axis=1) for x in (a[..., 0] & ~b[..., 0], ~a[..., 0] & b[..., 0]))
        p = np.minimum(1.0, 2 * binom.cdf(np.minimum(fixed, broken), fixed + broken, 0.5))
        change = (broken - fixed) / a.shape[1]
        wins.append((p < 0.05) & (change < 0))
        losses.append((p < 0.05) & (change > 0.02))
    return np.array(wins)[target, np.arange(len(target))] & ~np.any(losses, axis=0)


def results(pictures: Sequence[Pictures], number: int) -> Results:
    """One draw as the gate reads it."""
    passing = {f"c{c}": 1.0 - x[number].mean(axis=-1) for c, x in enumerate(pictures)}
    return {(f"p{i}", c): float(share) for c, shares in passing.items() for i, share in enumerate(shares)}


def rules(old: Sequence[Pictures], new: Sequence[Pictures], target: NDArray[np.int64], policy: Gate) -> Floats:
    """Shares of draws that the gate and the old rule promote. Errors: `AssertionError` if `judge` decides otherwise."""
    promoted = new_rule(old, new, target, policy)
    for n in range(min(CHECKED, len(target))):
        verdict = judge(results(new, n), results(old, n), targets=[f"c{target[n]}"], policy=policy).verdict
        if (verdict == "PROMOTE") != promoted[n]:
            raise AssertionError(f"draw {n}: the gate says {verdict}, the benchmark {promoted[n]}")
    return np.array([promoted.mean(), old_rule(old, new, target).mean()])


def false_promotions(s: Setting, policy: Gate, draws: int, dice: np.random.Generator) -> Floats:
    """[shape of the loss, rule]: shares of promoted candidates that lose the margin."""
    target = draw(dice, chances(dice, (draws, s.prompts), TARGET_RATE, s.alike), s.pictures)
    chance = chances(dice, (draws, s.prompts), s.rate, s.alike)
    old, nobody = [target, draw(dice, chance, s.pictures)], np.zeros(draws, np.int64)
    after = [lose(dice, chance, policy.margin, s.rate, shape) for shape in ("spread", "break")]
    return np.array([rules(old, [target & False, draw(dice, a, s.pictures)], nobody, policy) for a in after])


def flat(s: Setting, policy: Gate, draws: int, dice: np.random.Generator) -> Floats:
    """[rule]: shares of promoted candidates that changed nothing."""
    chance = [chances(dice, (draws, s.prompts), s.rate, s.alike) for _ in range(s.capabilities)]
    old, new = ([draw(dice, c, s.pictures) for c in chance] for _ in range(2))
    return rules(old, new, np.argmax([x.mean(axis=(1, 2)) for x in old], axis=0), policy)


def detected(s: Setting, policy: Gate, draws: int, dice: np.random.Generator) -> tuple[Floats, list[float]]:
    """([incumbent, rule] shares of promoted candidates that change as planned, planned changes)."""
    shares, changes = [], []
    for _ in range(INCUMBENTS):
        chance = [chances(dice, (1, s.prompts), s.rate, s.alike) for _ in range(s.capabilities)]
        old = [draw(dice, c, s.pictures) for c in chance]
        plan = power.outlook(results(old, 0), targets=["c0"], policy=policy, pictures=s.pictures)
        if (change := plan.targets[0].change) is None:
            continue
        after = [np.repeat(c, draws, axis=0) for c in (chance[0] * max(0.0, 1 - change / s.rate), *chance[1:])]
        new = [draw(dice, c, s.pictures) for c in after]
        shares.append(rules([np.repeat(x, draws, axis=0) for x in old], new, np.zeros(draws, np.int64), policy))
        changes.append(change)
    return np.array(shares).reshape(-1, 2), changes


def erosion(policy: Gate, dice: np.random.Generator) -> dict[str, float]:
    """Mean true loss after ten rounds, in margins: by the gate, without the best, by the old rule."""
    size, lost = (120, 4), {"eroded": 0.0, "eroded_without_best": 0.0, "old_rule_eroded": 0.0}
    for name, _ in itertools.product(lost, range(CHAINS)):
        rates, nobody = np.array([0.9, 0.2]), np.zeros(1, np.int64)
        old = [draw(dice, np.full((1, size[0]), r), size[1]) for r in rates]
        earlier = {1: results(old, 0)}
        for n in range(2, ROUNDS + 2):
            tried = rates * [2 / 3, 1] + [0, policy.margin / 3]
            new = [draw(dice, np.full((1, size[0]), r), size[1]) for r in tried]
            if name == "old_rule_eroded":
                promoted = bool(old_rule(old, new, nobody)[0])
            else:
                best = earlier if name == "eroded" else {}
                verdict = judge(results(new, 0), results(old, 0), earlier=best, targets=["c0"], policy=policy)
                promoted = verdict.verdict == "PROMOTE"
            if promoted:
                old, rates, earlier = new, tried, earlier | {n: results(new, 0)}
        lost[name] += (rates[1] - 0.2) / policy.margin / CHAINS
    return {name: round(loss, 2) for name, loss in lost.items()}


def line(s: Setting, *figures: object) -> None:
    """Print one setting with its figures."""
    sizes = f"{s.prompts:>8}{s.pictures:>10}{s.rate:>7.0%}{s.alike:>8.1f}{s.capabilities:>14}"
    print(sizes + "".join(f"{x:>12.1%}" if isinstance(x, float) else f"{x:>12}" for x in figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=2000, help="candidates per setting")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--margin", type=float, default=Gate().margin)
    arguments = parser.parse_args()
    policy, dice, draws = Gate(margin=arguments.margin), np.random.default_rng(arguments.seed), arguments.draws
    header = f"{'prompts':>8}{'pictures':>10}{'fails':>7}{'alike':>8}{'capabilities':>14}"
    figures: dict[str, Any] = {"margin": policy.margin, "draws": draws, "seed": arguments.seed}

    print(f"\npromoted although a capability loses {policy.margin:.0%}\n{header}" + f"{'spread':>12}{'break':>12}" * 2)
    lost = []
    for s in settings((30, 60, 120, 240), (1, 2, 4), (2,)):
        lost.append(false_promotions(s, policy, draws, dice))
        line(s, *map(float, lost[-1].T.ravel()))
    figures["false_promote"], figures["old_rule_false_promote"] = (float(x) for x in np.max(lost, axis=(0, 1)))

    print(f"\npromoted although nothing changed\n{header}{'gate':>12}{'old rule':>12}")
    unchanged = []
    for s in settings((30, 120, 240), (1, 4), (2, 6)):
        unchanged.append(flat(s, policy, draws, dice))
        line(s, *map(float, unchanged[-1]))
    figures["flat_promote"], figures["old_rule_flat_promote"] = (float(x) for x in np.max(unchanged, axis=0))

    print(f"\npromoted if the target changes as planned\n{header}{'planned':>12}{'gate':>12}{'old rule':>12}")
    found, small = [], 0
    for s in settings((30, 60, 120, 240), (1, 4), (2, 6)):
        shares, changes = detected(s, policy, draws // 10, dice)
        if len(changes) < INCUMBENTS / 2:
            small += 1
            line(s, "too small", f"({len(changes)} of {INCUMBENTS})")
        else:
            found.append(shares.mean(axis=0))
            line(s, float(np.mean(changes)), *map(float, found[-1]))
    figures["power"], figures["old_rule_power"] = (round(float(x), 4) for x in np.min(found, axis=0))
    figures |= {"power_mean": round(float(np.mean(found, axis=0)[0]), 4), "settings": len(found), "too_small": small}
    print(json.dumps(figures | erosion(policy, dice)))


if __name__ == "__main__":
    main()
