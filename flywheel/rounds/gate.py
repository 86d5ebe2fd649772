"""The gate: compares a candidate's results with the incumbent's and decides PROMOTE, HOLD or REJECT. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from flywheel.core.records import GateLine
from flywheel.presets import Gate
from flywheel.signals.results import Results

BOOTSTRAPS = 2000


@dataclass(frozen=True)
class Verdict:
    """The gate's decision, its reason, and the comparison per capability that it follows from."""

    verdict: str  # PROMOTE | HOLD | REJECT
    reason: str
    lines: tuple[GateLine, ...]


def judge(
    candidate: Results, incumbent: Results | None, *, targets: Collection[str] = (), policy: Gate = Gate()
) -> Verdict:
    """Compare the candidate with the incumbent on the same prompts.

    Any regression → REJECT; else a win in a targeted capability (in any, if none is targeted) → PROMOTE; else HOLD.
    Without an incumbent the candidate is promoted and becomes the baseline. Errors: `ValueError` if the two were
    evaluated on different prompts.
    """
    if incumbent is None:
        return Verdict("PROMOTE", "no incumbent: the first checkpoint becomes the baseline", ())
    if candidate.keys() != incumbent.keys():
        raise ValueError("candidate and incumbent were evaluated on different prompts: evaluate both on one suite")
    capabilities = sorted({c for _, c in candidate})
    lines = tuple(_line(c, candidate, incumbent, c in targets, policy) for c in capabilities)
    worse = [x.check for x in lines if x.outcome == "regression"]
    wins = [x.check for x in lines if x.outcome == "win" and (x.targeted or not targets)]
    if worse:
        return Verdict("REJECT", f"regression in {', '.join(worse)}", lines)
    if wins:
        return Verdict("PROMOTE", f"win in {', '.join(wins)}, no regression", lines)
    return Verdict("HOLD", "no significant win in the targeted capabilities", lines)


def _line(capability: str, candidate: Results, incumbent: Results, targeted: bool, policy: Gate) -> GateLine:
    keys = sorted(k for k in candidate if k[1] == capability)
    new = np.array([not candidate[k] for k in keys], dtype=float)
    old = np.array([not incumbent[k] for k in keys], dtype=float)
    fixed, broken = int(((old == 1) & (new == 0)).sum()), int(((old == 0) & (new == 1)).sum())
    # McNemar's exact test: only prompts on which the two differ carry evidence.
    p = float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0
    draws = np.random.default_rng(0).integers(0, len(keys), (BOOTSTRAPS, len(keys)))
    low, high = np.quantile((new - old)[draws].mean(axis=1), (0.025, 0.975))
    change = float((new - old).mean())
    outcome = "tie"
    if p < policy.alpha:
        outcome = "win" if change < 0 else "regression" if change > policy.tolerance else "tie"
    return GateLine(
        capability,
        len(keys),
        float(old.mean()),
        float(new.mean()),
        fixed,
        broken,
        float(low),
        float(high),
        p,
        targeted,
        outcome,
    )
