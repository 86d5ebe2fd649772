"""Case ids, detection and re-test."""

import json
from pathlib import Path

import pytest

from flywheel.cases.events import case_id, detect, event, load_cases, retest
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.flywheel.cases.builders import detected, folded, signal


@pytest.mark.parametrize(
    ("prompt_id", "capability", "expected"),
    [
        ("suite-7", "count", "9902634a2624983f"),
        ("user-ab", "typography", "eedb31da6ff8e343"),
        ("p", 'a "quoted" \\ id', "29bc63d413012e91"),
        ("提示-1", "multilingual_text", "83f1708251a89147"),
        ("emoji-🐱", "object", "281f6e12b97e2dc5"),
        ("tab\tid", "color", "1bb28df16c096a03"),
    ],
)
def test_case_ids_of_recorded_workspaces_stay(prompt_id: str, capability: str, expected: str):
    assert case_id(prompt_id, capability) == expected


def test_two_failed_checks_of_one_capability_are_one_case_and_unapplied_checks_none():
    signals = [
        signal("a", "count", False),
        signal("a", "count", False),
        signal("a", "color", True),
        signal("b", "color", None),
    ]
    events = detect(signals, {}, 1)
    assert [e["case_id"] for e in events] == [case_id("a", "count")]
    assert len(json.loads(events[0]["evidence"])["signals"]) == 2


def test_control_failures_and_known_cases_open_nothing():
    known = detected([signal("a", "count", False)])
    assert detect([signal("a", "count", False)], known, 1) == []
    assert detect([signal("b", "count", False, arm="control")], {}, 1) == []


def test_a_case_lives_through_closing_and_reopening(tmp_path: Path):
    events = detect([signal("a", "count", False)], {}, 1)
    case = folded(tmp_path, events)[case_id("a", "count")]
    events.append(event(case, 1, "routed", {}, track="rl"))
    events += retest({("a", "count"): True}, folded(tmp_path, events), 2)
    closed = folded(tmp_path, events)
    assert not closed[case.case_id].is_open
    assert retest({("a", "count"): True}, closed, 3) == []  # still closed: no event
    events += retest({("a", "count"): False}, closed, 3)
    reopened = folded(tmp_path, events)[case.case_id]
    assert reopened.is_open and reopened.track == "rl" and reopened.round == 1


def test_cases_come_by_round_and_id(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    for round_, prompts in ((2, "fed"), (1, "cba")):
        signals = [signal(p, "count", False, round=round_) for p in prompts]
        Ledger(workspace, "case_events").append(detect(signals, {}, round_), key=str(round_))
    cases = load_cases(workspace)
    order = [(c.round, c.case_id) for c in cases.values()]
    assert order == sorted(order) and list(cases) == [i for _, i in order]
    assert sorted(c.prompt_id for c in cases.values()) == list("abcdef")


def test_event_ids_are_unique_per_case_round_and_kind():
    case = detected([signal("a", "count", False)])[case_id("a", "count")]
    ids = {event(case, r, k, {})["event_id"] for r in (1, 2) for k in ("routed", "remedied")}
    assert len(ids) == 4
