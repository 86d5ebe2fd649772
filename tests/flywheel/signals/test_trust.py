"""Rates of verifiers against published formulas and simulated truth, and the rule by which they are trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flywheel.catalog.database import query
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.human_verdicts import record
from flywheel.signals.trust import BOUND, FEWEST, Counts, Trust, load_trust, measure, warning
from tests.flywheel.signals.judged import blind, judged


def counts(**changes: Any) -> Counts:
    """500 passes and 500 fails, of which people judged 50 each."""
    given = {"verdicts": 1000, "passed": 500, "passes": 50, "fails": 50, "good_passes": 45, "good_fails": 5}
    return Counts(verifier="text", pictures=200, failed=100, **given | changes)


def test_rates_by_hand_where_it_passes_half() -> None:
    trust = measure(counts())
    # 450 good and 50 bad among its passes, 50 good and 450 bad among its fails.
    assert trust.tpr == pytest.approx(0.9) and trust.tnr == pytest.approx(0.9)
    assert trust.kappa == pytest.approx(0.8)
    assert trust.failure_rate == 0.5 and trust.corrected == pytest.approx((0.5 + 0.9 - 1) / 0.8)


def test_the_sample_is_weighed_by_how_often_the_verifier_passes() -> None:
    """The same sample of a verifier that passes nearly all: few wrong fails, many wrong passes."""
    trust = measure(counts(passed=900))
    assert trust.tpr == pytest.approx(0.9 * 0.9 / (0.9 * 0.9 + 0.1 * 0.1))
    assert trust.tnr == pytest.approx(0.1 * 0.9 / (0.1 * 0.9 + 0.9 * 0.1))
    agreed, good = 0.9 * 0.9 + 0.1 * 0.9, 0.9 * 0.9 + 0.1 * 0.1
    chance = 0.9 * good + 0.1 * (1 - good)
    assert trust.kappa == pytest.approx((agreed - chance) / (1 - chance))


def test_swapped_labels_are_a_verifier_that_is_always_wrong() -> None:
    trust = measure(counts(good_passes=5, good_fails=45))
    assert trust.tpr == pytest.approx(0.1) and trust.tnr == pytest.approx(0.1) and trust.kappa == pytest.approx(-0.8)
    assert trust.state == "not trusted"
    assert trust.corrected is None and trust.corrected_low is None, "worse than chance: nothing can be corrected"


def test_a_verifier_that_tosses_coins_corrects_nothing() -> None:
    trust = measure(counts(good_passes=25, good_fails=25))
    assert trust.kappa == pytest.approx(0.0) and trust.corrected is None and trust.state == "not trusted"


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"good_passes": 50, "good_fails": 0}, "trusted"),
        ({"passes": 20, "fails": 20, "good_passes": 20, "good_fails": 0}, "trusted"),
        ({"passes": 19, "good_passes": 19, "good_fails": 0}, "not calibrated"),
        ({"fails": 19, "good_passes": 50, "good_fails": 0}, "not calibrated"),
        ({"passes": 0, "fails": 0, "good_passes": 0, "good_fails": 0}, "not calibrated"),
        ({"good_passes": 50, "good_fails": 10}, "not trusted"),
        ({"good_passes": 40, "good_fails": 0}, "not trusted"),
        ({"passed": 0, "passes": 0, "good_passes": 0, "good_fails": 0}, "not calibrated"),
        ({"passed": 990, "passes": 20, "fails": 20, "good_passes": 19, "good_fails": 0}, "not trusted"),
    ],
)
def test_states(changes: dict[str, int], state: str) -> None:
    trust = measure(counts(**changes))
    assert trust.state == state
    if state == "trusted":
        assert min(trust.tpr_low, trust.tnr_low) >= BOUND
    elif state == "not calibrated":
        assert "people judged" in trust.sentence and f"of {FEWEST}" in trust.sentence
    else:
        assert min(trust.tpr_low, trust.tnr_low) < BOUND and "text passes" in trust.sentence


def test_numbers_are_in_order_and_the_same_every_time() -> None:
    for changes in ({}, {"good_passes": 50}, {"good_fails": 0}, {"passed": 1}, {"good_passes": 0, "good_fails": 0}):
        trust = measure(counts(**changes))
        assert trust == measure(counts(**changes))
        for name in ("tpr", "tnr", "corrected"):
            low, value, high = (getattr(trust, name + end) for end in ("_low", "", "_high"))
            assert value is None or 0 <= low <= high <= 1
    bare = measure(counts(passes=0, fails=0, good_passes=0, good_fails=0))
    assert [bare.tpr, bare.tpr_low, bare.tnr_high, bare.kappa, bare.corrected] == [None] * 5


def test_intervals_hold_the_truth_of_simulated_verifiers() -> None:
    """400 worlds: pictures of which a share is bad, a verifier of known rates, and 40 + 40 blind verdicts."""
    dice, held = np.random.default_rng(7), {"tpr": 0, "tnr": 0, "corrected": 0}
    worlds = 400
    for _ in range(worlds):
        bad, tpr, tnr, later = dice.uniform(0.2, 0.6), dice.uniform(0.75, 0.97), dice.uniform(0.75, 0.97), 0.4
        truth = dice.random(3000) >= bad
        passed = np.where(truth, dice.random(3000) < tpr, dice.random(3000) >= tnr)
        shown = [dice.choice(np.flatnonzero(passed == side), 40, replace=False) for side in (True, False)]
        fails = dice.binomial(400, later * tnr + (1 - later) * (1 - tpr))
        trust = measure(
            Counts(
                verifier="text",
                verdicts=3000,
                passed=int(passed.sum()),
                passes=40,
                fails=40,
                good_passes=int(truth[shown[0]].sum()),
                good_fails=int(truth[shown[1]].sum()),
                pictures=400,
                failed=int(fails),
            )
        )
        for name, true in (("tpr", tpr), ("tnr", tnr), ("corrected", later)):
            low, high = getattr(trust, f"{name}_low"), getattr(trust, f"{name}_high")
            held[name] += low is not None and low <= true <= high
    assert all(0.91 <= n / worlds <= 0.99 for n in held.values()), held


def test_the_view_has_what_people_found_by_majority(tmp_path: Path) -> None:
    workspace = judged(tmp_path / "w", {"text": (30, 30), "count": (10, 0)})
    blind(workspace, "text", passes=(20, 5), fails=(0, 25))
    for who, found in (("bob", True), ("carl", True), ("dora", False)):  # 2 : 1, beside what ada found elsewhere
        assert record(workspace, "text-0", "samples/1/p0.png", found, who, blind=True)
    for who, found in (("bob", True), ("carl", False)):  # a draw tells nothing
        assert record(workspace, "text-1", "samples/1/p1.png", found, who, blind=True)
    assert record(workspace, "text-2", "samples/1/p2.png", None, "bob", blind=True)  # nor does one who cannot tell
    assert record(workspace, "text-3", "samples/1/p3.png", False, "bob", blind=False)  # nor one who saw the verdict
    known = load_trust(workspace)
    assert [t.verifier for t in known] == ["count", "text"]
    assert [t.verifier for t in load_trust(workspace, ["text"])] == ["text"] and load_trust(workspace, []) == []
    text = known[1]
    assert (text.passes, text.good_passes, text.fails, text.good_fails) == (26, 21, 25, 0)
    rows = query(workspace, "SELECT * FROM calibration ORDER BY verifier")
    assert rows == [{k: getattr(t, k) for k in Trust.__dataclass_fields__} for t in known]
    assert query(Workspace(tmp_path / "empty"), "SELECT * FROM calibration") == []


def test_the_gate_warns_of_verifiers_of_the_targets_alone(tmp_path: Path) -> None:
    workspace = judged(tmp_path / "w", {"text": (60, 60), "count": (30, 30), "color": (30, 30)})
    blind(workspace, "text", passes=(15, 15), fails=(0, 30))
    blind(workspace, "color", passes=(30, 0), fails=(0, 30))
    said = warning(workspace, 1, ["texts", "colors"])
    assert said.startswith("not trusted: text passes ") and "calibrated" not in said and "color" not in said
    assert warning(workspace, 1, ["counts"]) == "not calibrated by people: count"
    everything = warning(workspace, 1, [])
    assert everything.startswith("not trusted: text passes ")
    assert everything.endswith("of bad ones; not calibrated by people: count")
    assert warning(workspace, 1, ["colors"]) == "" and warning(workspace, 2, []) == ""


def test_failure_rates_are_of_the_newest_candidate(tmp_path: Path) -> None:
    workspace = judged(tmp_path / "w", {"text": (30, 10)})
    rows = Ledger(workspace, "signals").rows()
    newer = [r | {"signal_id": f"n{n}", "round": 2, "passed": n > 1} for n, r in enumerate(rows[:4])]
    control = [r | {"signal_id": f"c{n}", "round": 3, "arm": "control"} for n, r in enumerate(rows[:4])]
    Ledger(workspace, "signals").append([*newer, *control], key="more")
    (trust,) = load_trust(workspace)
    assert (trust.pictures, trust.failed, trust.failure_rate) == (4, 2, 0.5) and trust.verdicts == 48
