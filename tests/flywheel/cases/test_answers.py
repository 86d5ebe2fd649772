"""A person answers a case: it goes to another track, or stays dismissed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel.cases.answers import answer
from flywheel.cases.events import case_id, detect, event, load_cases, retest
from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.flywheel.cli.command import flywheel, wrong

ONE, OTHER = case_id("p0", "count"), case_id("p1", "count")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Two cases on the track of people."""
    made = Workspace(tmp_path / "w")
    common = {"round": 1, "arm": "candidate", "kind": "evaluation", "capability": "count", "verifier": "count"}
    common |= {"passed": False, "score": 0.0, "threshold": 1.0, "evidence": "{}", "image": "i"}
    rows = [common | {"prompt_id": f"p{n}", "prompt": f"{n} cats", "signal_id": f"s{n}"} for n in range(2)]
    Ledger(made, "signals").append(rows, key="signals")
    events = Ledger(made, "case_events")
    events.append(detect(rows, {}, 1), key="detect")
    routed = [event(c, 1, "routed", {"reason": "dense"}, track="human") for c in load_cases(made).values()]
    events.append(routed, key="route")
    return made


def test_an_answer_sends_a_case_to_a_track_as_often_as_people_change_their_minds(workspace: Workspace):
    for track in ("rl", "pretraining", "rl"):
        assert answer(workspace, ONE[:6], track=track, by="ada", why="some seeds do it").track == track
        known = load_cases(workspace)[ONE]
        assert (known.track, known.status, known.is_open) == (track, "routed", True)
    rows = [r for r in Ledger(workspace, "case_events").rows() if r["case_id"] == ONE and r["kind"] == "routed"]
    assert len(rows) == 4 and json.loads(rows[-1]["evidence"]) == {"by": "ada", "reason": "some seeds do it"}
    assert load_cases(workspace)[OTHER].track == "human"


def test_a_dismissed_case_is_never_opened_again(workspace: Workspace):
    verb = ("review", "case", ONE, "--reviewer", "ada", "-w", workspace.root, "--why", "the check cannot count cats")
    assert "give either" in wrong(*verb) and "give either" in wrong(*verb, "--dismiss", "--track", "rl")
    assert json.loads(flywheel(*verb, "--dismiss", "--json").stdout)["status"] == "dismissed"
    assert not load_cases(workspace)[ONE].is_open
    failed = retest({("p0", "count"): 0.0, ("p1", "count"): 0.0}, load_cases(workspace), 2)
    assert [e["case_id"] for e in failed] == [OTHER]
    listed = json.loads(flywheel("cases", "--status", "dismissed", "-w", workspace.root, "--json").stdout)
    assert [c["case_id"] for c in listed] == [ONE]
    with pytest.raises(UsageError, match="is dismissed: only open cases"):
        answer(workspace, ONE, track="rl", by="ada", why="x")


@pytest.mark.parametrize(
    ("case", "changes", "said"),
    [
        ("zz", {}, "0 cases have an id that begins with 'zz'"),
        ("", {}, "0 cases"),
        (ONE, {"track": "unsure"}, "unknown track 'unsure': choose rl"),
        (ONE, {"by": " "}, "say who answers"),
        (ONE, {"why": ""}, "say who answers, and why"),
    ],
)
def test_a_wrong_answer_is_one_sentence(workspace: Workspace, case: str, changes: dict[str, str], said: str):
    with pytest.raises(UsageError, match=said):
        answer(workspace, case, **({"track": "rl", "by": "ada", "why": "w"} | changes))
    assert load_cases(workspace)[ONE].track == "human"
