"""Shares of groups and caption kinds beside those that policy and recipe ask for."""

from __future__ import annotations

import pytest

from curation.policy.policy import Filter
from dashboards.coverage import groups, kind_shares, load_coverage, targets
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

BALANCE = Filter("balance", check="balance", per="category.name", cap=9, quotas=(("portrait", 0.4),), tail=0.5)


def test_quotas_are_asked_for_and_the_rest_by_the_tail() -> None:
    assert targets({"food": 100, "city": 400, "portrait": 7}, BALANCE) == pytest.approx(
        {"portrait": 0.4, "food": 0.2, "city": 0.4}
    )
    assert targets({"food": 1}, None) == {}
    assert targets({"food": 1}, Filter("balance", check="balance", per="source", cap=9)) == {}, "caps ask for no share"


def test_groups_have_shares_of_rows_of_draws_and_of_what_is_asked() -> None:
    counted = [
        {"bucket": 256, "name": "food", "n": 60},
        {"bucket": 512, "name": "food", "n": 20},
        {"bucket": 256, "name": None, "n": 20},
    ]
    food, unknown, portrait = groups(counted, {"256": {"food": 0.5}, "512": {"food": 2.0}}, BALANCE)
    assert (food.name, food.rows, food.share, food.target) == ("food", 80, 0.8, pytest.approx(0.6))
    assert food.drawn == pytest.approx(70 / 90) and unknown.drawn == pytest.approx(20 / 90)
    assert (unknown.name, unknown.target) == (None, None)
    assert (portrait.name, portrait.rows, portrait.drawn, portrait.target) == ("portrait", 0, 0.0, 0.4), "asked, absent"
    assert groups([], {}, None) == []


def test_kinds_that_a_row_lacks_leave_their_share_to_the_others() -> None:
    kinds = {("general", "text"): 50, ("general",): 50}
    shares = {s.name: s for s in kind_shares(kinds, {"general": 0.5, "text": 0.5, "knowledge": 1.0})}
    assert (shares["general"].share, shares["general"].drawn) == (1.0, 0.75)
    assert (shares["text"].rows, shares["text"].drawn, shares["text"].target) == (50, 0.25, 0.25)
    assert (shares["knowledge"].rows, shares["knowledge"].drawn, shares["knowledge"].target) == (0, 0.0, 0.5)
    assert sum(s.drawn for s in shares.values()) == pytest.approx(1.0)
    (only,) = kind_shares({("instruction",): 3}, None)
    assert (only.share, only.drawn, only.target) == (1.0, 1.0, None)
    assert kind_shares({}, None) == []


def test_the_shards_of_a_snapshot_are_counted(curated: Workspace) -> None:
    seen = load_coverage(curated)
    assert seen.stage == seen.stages[-1] and seen.rows > 0
    assert sum(s.rows for s in seen.groups) == seen.rows
    assert sum(s.share for s in seen.groups) == pytest.approx(1.0) == sum(s.drawn for s in seen.groups)
    assert [(s.name, s.rows) for s in seen.kinds] == [("general", seen.read)] and seen.read == seen.rows
    first = load_coverage(curated, seen.stages[0])
    assert (first.stage, first.rows, first.balanced) == ("S1", 6, False)
    with pytest.raises(UsageError, match="choose one of"):
        load_coverage(curated, "S9")


def test_before_the_first_shards_there_is_nothing(empty: Workspace, workspace: Workspace) -> None:
    assert load_coverage(empty).stages == [] and load_coverage(workspace).stage == ""
