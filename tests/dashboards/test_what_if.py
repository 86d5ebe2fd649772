"""Sliders of the latest snapshot's thresholds, and what they would change."""

from __future__ import annotations

import pytest

from dashboards.what_if import answer, changed, current, sliders
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace


def test_there_is_nothing_to_move_before_the_first_snapshot(empty: Workspace) -> None:
    assert current(empty) is None


def test_a_slider_has_the_range_of_its_score_and_of_its_threshold(curated: Workspace) -> None:
    base = current(curated)
    assert base is not None and current(curated) is base, "a snapshot never changes: it is read once"
    found = {s.path: s for s in sliders(curated, base)}
    size = found["S1.resolution.min"]
    assert (size.stage, size.filter, size.bound, size.reads) == ("S1", "resolution", "min", "header.short_edge")
    assert size.means == "pixels, shorter side, upright"
    assert (size.value, size.low, size.high) == (64, 64, 128)  # pictures of 80 and 128 pixels
    assert not any(s.reads.startswith("clip.") for s in found.values()), "no weights, no scores"
    assert all(s.low <= s.value <= s.high for s in found.values())
    assert all(sum(s.bins) == 6 for s in found.values() if s.reads.startswith(("header.", "pixels."))), "every row once"
    assert (size.bins[0], size.bins[10], size.bins[-1]) == (0, 1, 5), "80 is a quarter of the way from 64 to 128"
    stages = [s.stage for s in found.values()]
    assert stages == sorted(stages)


def test_only_moved_sliders_count(curated: Workspace) -> None:
    base = current(curated)
    assert base is not None
    assert changed(base.policy, {"S1.resolution.min": 64.0, "S1.entropy.max": 9.0}) == {"S1.entropy.max": 9.0}
    same = answer(curated, base, {"S1.resolution.min": "64"})
    assert same["changes"] == [] and same["admitted"]["before"] == same["admitted"]["after"] == 6
    moved = answer(curated, base, {"S1.resolution.min": "100"})["admitted"]
    assert (moved["after"], moved["leaves"]) == (5, 1)
    for wrong in ({"S1.resolution.min": "much"}, {"S9.none.min": "1"}):
        with pytest.raises(UsageError):
            answer(curated, base, wrong)
