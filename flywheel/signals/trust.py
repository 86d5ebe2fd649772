"""Whether a verifier can be trusted: its verdicts beside blind ones of people.

People judge a sample of the pictures that it passed and of those that it failed. The shares of each that they find good
and the share that it passes give, for all its verdicts, how many good pictures it passes (TPR) and how many bad ones it
fails (TNR; Begg and Greenes 1983: the sample is drawn by its verdict, not the truth), Cohen's kappa, and the failure
rate that people would see (Rogan and Gladen 1978). Intervals hold 95 % of a posterior with Jeffreys priors. Pictures of
one prompt are counted as if they had nothing in common, and what was judged as if it were drawn from all verdicts.

A verifier is *trusted* if TPR and TNR are at least `BOUND` at the lower ends of their intervals, *not calibrated* with
fewer than `FEWEST` blind verdicts on its passes or on its fails, and *not trusted* otherwise.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flywheel.core.lens import connect
from flywheel.core.workspace import Workspace
from flywheel.signals.human_verdicts import FRAME

BOUND = 0.8  # of TPR and TNR, at the lower end of the interval
FEWEST = 20  # blind verdicts on passes, and on fails
STATES = ("trusted", "not trusted", "not calibrated")
_DRAWS, _ENDS = 20_000, (0.025, 0.975)
_LEAST = 0.02  # TPR + TNR − 1 below which a verifier tells nothing, and no failure rate can be corrected

Floats = NDArray[np.float64]

# The truth about a check of a picture is what most people found who judged it blind; without a majority there is none.
_COUNTS = f"""
WITH judged AS (
    SELECT verifier, any_value(machine) AS machine,
           count(*) FILTER (passed) AS good, count(*) FILTER (NOT passed) AS bad
    FROM human_verdicts WHERE blind AND passed IS NOT NULL GROUP BY verifier, signal_id, image
), people AS (
    SELECT verifier, count(*) FILTER (machine) AS passes, count(*) FILTER (NOT machine) AS fails,
           count(*) FILTER (machine AND good > bad) AS good_passes,
           count(*) FILTER (NOT machine AND good > bad) AS good_fails
    FROM judged WHERE good <> bad GROUP BY verifier
), machine AS (
    SELECT verifier, count(*) AS verdicts, count(*) FILTER (passed) AS passed FROM ({FRAME}) GROUP BY verifier
), latest AS (
    SELECT verifier, count(*) AS pictures, count(*) FILTER (NOT passed) AS failed FROM ({FRAME})
    WHERE arm = 'candidate' AND round = (SELECT max(round) FROM signals WHERE arm = 'candidate') GROUP BY verifier
)
SELECT verifier, verdicts, passed, coalesce(passes, 0) AS passes, coalesce(fails, 0) AS fails,
       coalesce(good_passes, 0) AS good_passes, coalesce(good_fails, 0) AS good_fails,
       coalesce(pictures, 0) AS pictures, coalesce(failed, 0) AS failed
FROM machine LEFT JOIN people USING (verifier) LEFT JOIN latest USING (verifier) ORDER BY verifier
"""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a verifier and people said of pictures.

    verdicts: of the verifier, of which it passed `passed`; passes, fails: of these, those that people judged blind;
    good_passes, good_fails: those that they found good; pictures, failed: of the latest round's candidate.
    """

    verifier: str
    verdicts: int
    passed: int
    passes: int
    fails: int
    good_passes: int
    good_fails: int
    pictures: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class Trust(Counts):
    """A verifier beside people: shares in [0, 1] with the ends of their 95 % intervals; None where nothing tells.

    tpr: share of good pictures that it passes; tnr: share of bad ones that it fails; failure_rate: its own of the
    latest candidate's pictures; corrected: the one that people would see. state: one of `STATES`.
    """

    tpr: float | None
    tpr_low: float | None
    tpr_high: float | None
    tnr: float | None
    tnr_low: float | None
    tnr_high: float | None
    kappa: float | None
    failure_rate: float | None
    corrected: float | None
    corrected_low: float | None
    corrected_high: float | None
    state: str

    @property
    def sentence(self) -> str:
        """What is known of it, for people."""
        if self.state == "not calibrated":
            judged = {"passes": self.passes, "fails": self.fails}
            lacking = [f"{n} of {FEWEST} {k}" for k, n in judged.items() if n < FEWEST]
            return f"people judged {' and '.join(lacking)} of {self.verifier} blind"
        good, bad = f"{self.tpr_low:.0%} to {self.tpr_high:.0%}", f"{self.tnr_low:.0%} to {self.tnr_high:.0%}"
        return f"{self.verifier} passes {good} of good pictures and fails {bad} of bad ones"


def load_trust(workspace: Workspace, verifiers: Collection[str] | None = None) -> list[Trust]:
    """Every verifier that judged evaluations, or those named, by name."""
    with closing(connect(workspace, ("signals", "human_verdicts"))) as con:
        found = con.execute(_COUNTS)
        names = [column[0] for column in found.description or ()]
        rows = [dict(zip(names, row)) for row in found.fetchall()]
    return [measure(Counts(**row)) for row in rows if verifiers is None or row["verifier"] in verifiers]


def measure(counts: Counts) -> Trust:
    """The verifier's rates and their intervals. The same counts give the same numbers."""
    c, dice = counts, np.random.default_rng(0)
    share = c.passed / c.verdicts if c.verdicts else 0.5
    tpr, tnr = _rates(share, _share(c.good_passes, c.passes), _share(c.good_fails, c.fails))
    drawn = _rates(share, _draws(dice, c.good_passes, c.passes), _draws(dice, c.good_fails, c.fails))
    ends = np.quantile(np.array(drawn), _ENDS, axis=1).T if c.passes and c.fails else [(None, None)] * 2
    rate = _share(c.failed, c.pictures)
    wanted = rate is not None and tpr is not None and tnr is not None and tpr + tnr - 1 > _LEAST
    spread = np.quantile(_corrected(_draws(dice, c.failed, c.pictures), *drawn), _ENDS) if wanted else (None, None)
    (tpr_low, tpr_high), (tnr_low, tnr_high), (low, high) = ([_plain(x) for x in pair] for pair in (*ends, spread))
    proven = tpr_low is not None and tnr_low is not None and min(tpr_low, tnr_low) >= BOUND
    return Trust(
        **vars(counts),
        tpr=tpr,
        tpr_low=tpr_low,
        tpr_high=tpr_high,
        tnr=tnr,
        tnr_low=tnr_low,
        tnr_high=tnr_high,
        kappa=_kappa(share, _share(c.good_passes, c.passes), _share(c.good_fails, c.fails)),
        failure_rate=rate,
        corrected=_plain(_corrected(rate, tpr, tnr)) if wanted else None,
        corrected_low=low,
        corrected_high=high,
        state="not calibrated" if min(c.passes, c.fails) < FEWEST else "trusted" if proven else "not trusted",
    )


def warning(workspace: Workspace, round_: int, targets: Collection[str]) -> str:
    """What the gate says of the verifiers that judged a round's targets, or all without targets; empty if trusted.

    It names those that are not trusted, with their rates, and those that are not calibrated.
    """
    judged = f"""SELECT DISTINCT verifier FROM ({FRAME}) WHERE round = ? AND arm = 'candidate'
                 AND (len(?::VARCHAR[]) = 0 OR list_contains(?::VARCHAR[], capability))"""
    with closing(connect(workspace, ("signals",))) as con:
        names = {name for (name,) in con.execute(judged, [round_, list(targets), list(targets)]).fetchall()}
    known = load_trust(workspace, names)
    doubted = [t.sentence for t in known if t.state == "not trusted"]
    unknown = [t.verifier for t in known if t.state == "not calibrated"]
    parts = [f"not trusted: {'; '.join(doubted)}"] if doubted else []
    return "; ".join(parts + ([f"not calibrated by people: {', '.join(unknown)}"] if unknown else []))


def _plain(value: Any) -> float | None:
    return None if value is None else float(value)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _draws(dice: np.random.Generator, part: int, whole: int) -> Floats:
    return dice.beta(part + 0.5, whole - part + 0.5, _DRAWS)


def _rates(share: Any, good_passes: Any, good_fails: Any) -> tuple[Any, Any]:
    """(TPR, TNR) from the share that it passes, and the shares of its passes and fails that are good."""
    if good_passes is None or good_fails is None:
        return None, None
    good, bad = share * good_passes, (1 - share) * (1 - good_fails)
    return _ratio(good, (1 - share) * good_fails), _ratio(bad, share * (1 - good_passes))


def _ratio(right: Any, wrong: Any) -> Any:
    return right / (right + wrong) if isinstance(right, np.ndarray) or right + wrong else None


def _kappa(share: float, good_passes: float | None, good_fails: float | None) -> float | None:
    """Cohen's kappa of the verifier and people, over all its verdicts."""
    if good_passes is None or good_fails is None:
        return None
    good = share * good_passes + (1 - share) * good_fails
    agreed = share * good_passes + (1 - share) * (1 - good_fails)
    chance = share * good + (1 - share) * (1 - good)
    return (agreed - chance) / (1 - chance) if chance < 1 else None


def _corrected(rate: Any, tpr: Any, tnr: Any) -> Any:
    """The failure rate of which the verifier sees `rate` (Rogan and Gladen), in [0, 1]."""
    return np.clip((rate + tpr - 1) / np.maximum(tpr + tnr - 1, _LEAST), 0.0, 1.0)
