"""The incumbent is a fold over verdicts and decisions, and cases follow it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.cases.events import load_cases
from flywheel.catalog import database as catalog
from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.rounds.promotion import decide, history, incumbent, rollback_target
from flywheel.rounds.sample import promoted_checkpoint
from tests.flywheel.rounds.verdicts import finished_rounds

START = datetime(2026, 1, 1, tzinfo=UTC)


def open_prompts(workspace: Workspace) -> set[str]:
    views = catalog.query(workspace, "select prompt_id, status from cases")
    folded = {c.prompt_id for c in load_cases(workspace).values() if c.is_open}
    assert folded == {v["prompt_id"] for v in views if v["status"] != "closed"}
    return folded


def test_rollback_is_one_event_and_cases_follow_the_incumbent(tmp_path: Path):
    workspace = finished_rounds(tmp_path / "w", "PROMOTE", "PROMOTE")
    assert incumbent(workspace).round == 2 and open_prompts(workspace) == {"b"}
    decide(workspace, "rollback", rollback_target(workspace), by="ada", why="users complain")
    assert incumbent(workspace).round == 1 and open_prompts(workspace) == {"a"}
    assert promoted_checkpoint(workspace) == workspace.path("checkpoints/1")
    with pytest.raises(UsageError, match="no earlier"):
        rollback_target(workspace)
    decide(workspace, "promote", 2, by="ada", why="a false alarm")
    assert incumbent(workspace).round == 2 and open_prompts(workspace) == {"b"}
    ids = [e["event_id"] for e in Ledger(workspace, "case_events").rows()]
    assert len(ids) == len(set(ids))


def test_a_person_may_promote_what_the_gate_held_and_reject_what_it_promoted(tmp_path: Path):
    workspace = finished_rounds(tmp_path / "w", "PROMOTE", "HOLD", "PROMOTE")
    assert [r["round"] for r in map(vars, history(*rows(workspace)))] == [1, 3]
    decide(workspace, "reject", 3, by="ada", why="faces")
    assert incumbent(workspace).round == 1 and open_prompts(workspace) == {"a"}
    decision = decide(workspace, "promote", 2, by="ada", why="looks better")
    assert decision["incumbent"] == "checkpoints/2" and open_prompts(workspace) == {"b"}


def rows(workspace: Workspace) -> tuple[list, list]:
    return Ledger(workspace, "rounds").rows(), Ledger(workspace, "promotions").rows()


def test_decisions_that_make_no_sense_are_refused(tmp_path: Path):
    workspace = finished_rounds(tmp_path / "w", "PROMOTE", "HOLD")
    for kind, number, by, why, message in (
        ("promote", 2, "", "x", "--by"),
        ("promote", 2, "ada", " ", "--why"),
        ("promote", 9, "ada", "x", "no verdict"),
        ("promote", 1, "ada", "x", "already"),
        ("rollback", 2, "ada", "x", "not among the promoted"),
    ):
        with pytest.raises(UsageError, match=message):
            decide(workspace, kind, number, by=by, why=why)
    assert Ledger(workspace, "promotions").rows() == []


EVENTS = st.lists(st.tuples(st.sampled_from(["promote", "reject", "rollback"]), st.integers(1, 4)), max_size=12)


@given(gate=st.lists(st.booleans(), min_size=4, max_size=4), people=EVENTS)
def test_history_never_holds_a_round_twice_nor_one_that_was_rejected_last(gate: list[bool], people: list):
    verdicts = [
        {"round": n, "checkpoint": f"c{n}", "verdict": "PROMOTE" if ok else "HOLD", "at": START + timedelta(n)}
        for n, ok in enumerate(gate, 1)
    ]
    decisions = [
        {"kind": k, "round": n, "checkpoint": f"c{n}", "at": START + timedelta(10 + i)}
        for i, (k, n) in enumerate(people)
    ]
    promoted = [p.round for p in history(verdicts, decisions)]
    assert len(promoted) == len(set(promoted))
    for n in range(1, 5):
        mine = [k for k, m in people if m == n]
        if mine and mine[-1] == "reject":
            assert n not in promoted
    if people and people[-1][0] == "promote":
        assert promoted[-1] == people[-1][1]
    assert promoted == [p.round for p in history(verdicts[::-1], decisions[::-1])]
