"""Prompts of cases that the suite does not judge, and what a person is asked about the others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flywheel.cases.events import Case, case_id
from flywheel.cases.prompts import case_prompts, questions, seen
from flywheel.core.files import write_bytes
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.presets import load_preset
from flywheel.signals.suite import Prompt
from tests.flywheel.core.pictures import saved, scene

BARE = load_preset("tiny").evaluation
JUDGED = replace(BARE, judge={"url": "http://localhost:1", "model": "m"})
SIGN = 'a sign, "OPEN"'


def case(prompt_id: str, prompt: str, capability: str) -> Case:
    return Case(case_id(prompt_id, capability), 1, capability, None, prompt_id, prompt, "detected")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    filled = Workspace(tmp_path / "w")
    write_bytes(filled.path("sound.png"), saved(scene(), "PNG"))
    write_bytes(filled.path("torn.png"), b"torn")
    rows = [
        {"signal_id": p, "prompt_id": p, "kind": "feedback", "task": "ti2i", "prompt": "make it snow", "passed": False}
        | {"evidence": json.dumps({"references": json.dumps(r)} if r else {})}
        for p, r in (("sound", ["sound.png"]), ("torn", ["torn.png"]), ("none", None))
    ]
    Ledger(filled, "signals").append(rows, key="s")
    return filled


def test_only_what_the_suite_does_not_judge_gets_checks_of_its_own(workspace: Workspace) -> None:
    suite = [Prompt("p", SIGN, "t2i", (), ({"verifier": "color", "capability": "color", "color": "red"},))]
    known, other = case("p", SIGN, "color"), case("p", SIGN, "typography")
    assert case_prompts(workspace, [known], suite, BARE).prompts == ()
    own = case_prompts(workspace, [known, other, case("q", SIGN, "typography")], suite, BARE)
    assert [(p.prompt_id, [c["capability"] for c in p.checks]) for p in own.prompts] == [
        ("p", ["typography"]), ("q", ["typography"])
    ]  # fmt: skip
    joined = {p.prompt_id: [c["capability"] for c in p.checks] for p in own.with_suite(suite)}
    assert joined == {"p": ["color", "typography"], "q": ["typography"]} and not own.unjudged


def test_cases_of_one_prompt_are_sampled_once(workspace: Workspace) -> None:
    found = case_prompts(workspace, [case("q", SIGN, c) for c in ("typography", "object")], [], JUDGED)
    (prompt,) = found.prompts
    assert {c["capability"] for c in prompt.checks} == {"typography", "object"}


def test_an_edit_is_sampled_from_its_references_and_without_them_a_person_decides(workspace: Workspace) -> None:
    cases = [case(p, "make it snow", "editing") for p in ("sound", "torn", "none")]
    found = case_prompts(workspace, cases, [], JUDGED)
    assert [(p.prompt_id, p.references) for p in found.prompts] == [("sound", (workspace.path("sound.png"),))]
    why = {c.prompt_id: found.unjudged.get(c.case_id, "") for c in cases}
    assert "torn.png cannot be read" in why["torn"] and "name no reference pictures" in why["none"]


def test_a_person_is_asked_about_what_users_said_and_shown_what_failed(workspace: Workspace) -> None:
    asked = case("q", "a man", "portrait")
    signals = [
        {"image": f"{n}.png", "evidence": {"reason": r}} for n, r in enumerate(("six fingers", "", "six fingers"))
    ]
    event = {"event_id": "e", "case_id": asked.case_id, "round": 1, "kind": "detected", "capability": "portrait"}
    event |= {"prompt_id": "q", "prompt": "a man", "evidence": json.dumps({"signals": signals})}
    Ledger(workspace, "case_events").append([event], key="e")
    assert seen(workspace, [asked]) == {asked.case_id: ("six fingers", ["0.png", "1.png", "2.png"])}
    unjudged = case_prompts(workspace, [asked], [], BARE).unjudged
    assert unjudged == {asked.case_id: "no verifier can judge portrait on this prompt"}
    (question,) = questions(workspace, unjudged, [asked, case("r", "a dog", "object")]).values()
    assert question["question"].endswith("Users said: six fingers") and question["pictures"][0] == "0.png"
    assert question["reason"] == f"{unjudged[asked.case_id]}: a person decides" and question["sure"]
