"""The gate: compares a candidate's results with earlier ones and decides PROMOTE, HOLD or REJECT. Pure.

Every capability is compared on the same prompts, by the failing share of each prompt's pictures: with the incumbent,
and with the promoted checkpoint that failed least ("the best"), so that small losses do not add up over rounds. All
tests are one-sided, at level `gate.alpha` (`flywheel.rounds.paired`). Outcomes of a capability:

- *win*: fewer failures than the incumbent. P-values are Holm's over all capabilities, not over the targets alone:
  targets are chosen because they failed in the results that they are compared with, and chance alone makes some fail.
- *regression*: a loss of more than the margin is shown, against the incumbent, or against the best without a win.
- *tie*: a loss of the margin or more is ruled out, against both.
- *unclear*: none of these. The suite is too small to tell.

A regression gives REJECT. PROMOTE needs a win in a target (in any capability, if none is targeted) and nothing unclear;
everything else is HOLD. A candidate that loses the margin somewhere is promoted only if the test of that very
capability errs. So at most alpha of such candidates are promoted, however many capabilities there are, without a
correction. Power does suffer: each further capability is one more test to pass. It also suffers from a best that was
lucky: its luck looks like a loss of all that come after it, until it is rejected or rolled back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flywheel.core.records import GateLine
from flywheel.presets import Gate
from flywheel.rounds import paired
from flywheel.signals.results import Results

Key = tuple[str, str]  # prompt id, capability
Tally = tuple[paired.Floats, paired.Floats]


@dataclass(frozen=True)
class Verdict:
    """The gate's decision, its reason, and the comparison per capability that it follows from."""

    verdict: str  # PROMOTE | HOLD | REJECT
    reason: str
    lines: tuple[GateLine, ...]


def judge(
    candidate: Results,
    incumbent: Results | None,
    *,
    earlier: Mapping[int, Results] | None = None,
    targets: Collection[str] = (),
    policy: Gate = Gate(),
    pictures: int = 1,
) -> Verdict:
    """Compare the candidate with the incumbent and with the best of the promoted rounds.

    earlier: results of promoted rounds, by round; pictures: of each prompt, for the verdict's reason. Without an
    incumbent the candidate is promoted and becomes the baseline. Errors: `ValueError` if candidate and incumbent were
    evaluated on different prompts.
    """
    if incumbent is None:
        return Verdict("PROMOTE", "no incumbent: the first checkpoint becomes the baseline", ())
    if candidate.keys() != incumbent.keys():
        raise ValueError("candidate and incumbent were evaluated on different prompts: evaluate both on one suite")
    prompts = by_capability(candidate)
    against = {c: _Change.of(candidate, incumbent, keys) for c, keys in prompts.items()}
    wins = dict(zip(against, holm([float(paired.p_at_least(*a.tally, 0.0)) for a in against.values()])))
    lines = []
    for c, now in against.items():
        best = best_of(earlier or {}, prompts[c], now.before)
        changes = [now] + ([_Change.of(candidate, best[1], prompts[c], best[0])] if best else [])
        lines.append(_line(c, changes, wins[c], c in targets, len(wins), policy))
    return _verdict(tuple(lines), bool(targets), pictures)


def by_capability(results: Results) -> dict[str, list[Key]]:
    """The keys of each capability, both in order."""
    keys: dict[str, list[Key]] = {}
    for key in sorted(results, key=lambda k: (k[1], k[0])):
        keys.setdefault(key[1], []).append(key)
    return keys


def failing(results: Results, keys: Sequence[Key]) -> paired.Floats:
    """Shares of pictures that fail, in the order of `keys`."""
    return np.array([1.0 - results[k] for k in keys])


def best_of(earlier: Mapping[int, Results], keys: Sequence[Key], rate: float) -> tuple[int, Results] | None:
    """(round, results) of the promoted round that failed least on these prompts; None if none is below `rate`."""
    rates = {n: float(failing(r, keys).mean()) for n, r in sorted(earlier.items()) if all(k in r for k in keys)}
    best = min(rates, key=lambda n: rates[n], default=None)
    return (best, earlier[best]) if best is not None and rates[best] < rate - 1e-9 else None


def most(numbers: Iterable[int | None]) -> int | None:
    """The largest number; None if one of them is unbounded (None)."""
    known = list(numbers)
    return None if None in known else max(n for n in known if n is not None)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, in their order (Holm 1979): each is the level at which it is rejected."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.tolist()


@dataclass(frozen=True)
class _Change:
    """The candidate's failures against one reference on the prompts of a capability, each a share of pictures."""

    before: float  # failure rate of the reference
    after: float
    differences: NDArray[np.float64]  # after - before, by prompt
    round: int | None = None  # of the reference, if it is not the incumbent

    @classmethod
    def of(cls, candidate: Results, reference: Results, keys: Sequence[Key], round_: int | None = None) -> _Change:
        old, new = failing(reference, keys), failing(candidate, keys)
        return cls(float(old.mean()), float(new.mean()), new - old, round_)

    @cached_property
    def tally(self) -> Tally:
        return paired.tally(self.differences)

    @cached_property
    def mirrored(self) -> Tally:
        return paired.tally(-self.differences)

    def interval(self, alpha: float) -> tuple[float, float]:
        return -paired.upper(*self.mirrored, alpha), paired.upper(*self.tally, alpha)


def _line(capability: str, changes: Sequence[_Change], p: float, targeted: bool, tests: int, policy: Gate) -> GateLine:
    """changes: against the incumbent, and the best if that is another; p: adjusted, of a win; tests: capabilities."""
    margin, alpha, now = policy.margin_of(capability), policy.alpha, changes[0]
    worse = [bool(paired.p_at_least(*c.mirrored, -margin) <= alpha) for c in changes]
    unproven = [c for c in changes if paired.p_at_least(*c.tally, margin) > alpha]
    win, needed = p <= alpha, None
    outcome = "regression" if worse[0] or (any(worse) and not win) else "win" if win else "tie"
    if outcome == "tie" and unproven:
        outcome = "unclear"
        needed = most(paired.prompts_needed(*c.tally, margin, alpha) for c in unproven)
    elif outcome == "tie" and targeted and now.after < now.before:
        needed = paired.prompts_needed(*now.tally, now.before - now.after, alpha / tests)
    if needed:  # an estimate: what this suite did not tell, one of its size does not
        needed = max(needed, len(now.differences) + 1)
    low, high = now.interval(alpha)
    best = changes[1] if len(changes) > 1 else None
    best_low, best_high = best.interval(alpha) if best else (None, None)
    return GateLine(
        check=capability,
        n=len(now.differences),
        incumbent=now.before,
        candidate=now.after,
        fixed=int((now.differences < 0).sum()),
        broken=int((now.differences > 0).sum()),
        low=low,
        high=high,
        p_value=p,
        targeted=targeted,
        outcome=outcome,
        margin=margin,
        best=best.before if best else None,
        best_round=best.round if best else None,
        best_low=best_low,
        best_high=best_high,
        needed=needed,
    )


def _verdict(lines: tuple[GateLine, ...], aimed: bool, pictures: int) -> Verdict:
    def with_(outcome: str) -> list[GateLine]:
        return [x for x in lines if x.outcome == outcome]

    wins = [x.check for x in with_("win") if x.targeted or not aimed]
    if worse := with_("regression"):
        return Verdict("REJECT", f"loss beyond the margin in {', '.join(map(_loss, worse))}", lines)
    unclear = with_("unclear")
    if wins and not unclear:
        return Verdict("PROMOTE", f"win in {', '.join(wins)}; a loss beyond the margin is ruled out elsewhere", lines)
    reasons = []
    if unclear:
        sizes = ", ".join(_size(x, pictures) for x in unclear)
        reasons.append(f"the suite is too small to rule out a loss beyond the margin in {sizes}")
    if not wins:
        near = [_size(x, pictures) for x in with_("tie") if x.targeted and x.needed]
        reasons.append(
            f"no significant win in {'a targeted' if aimed else 'any'} capability"
            + (f"; a change as seen needs a larger suite to show: {', '.join(near)}" if near else "")
        )
    return Verdict("HOLD", "; ".join(reasons), lines)


def _loss(line: GateLine) -> str:
    low, high, of = line.low, line.high, "the incumbent"
    if line.best_low is not None and line.best_high is not None and line.best_low > low:
        low, high, of = line.best_low, line.best_high, f"the best, of round {line.best_round}"
    return f"{line.check} ({100 * low:.0f} to {100 * high:.0f} points more failures than {of})"


def _size(line: GateLine, pictures: int) -> str:
    each = f" of {pictures} pictures" if pictures > 1 else ""
    enough = f"about {line.needed} would tell" if line.needed else "no suite would tell"
    return f"{line.check} ({line.n} prompts{each}, {enough})"
