"""Checks for prompts from outside the suite: what judges them, and what must not."""

from dataclasses import replace
from pathlib import Path

from curation.verify.checks import verifiers
from flywheel.cases.checks import MAKERS, checks_for
from flywheel.presets import load_preset

BARE = load_preset("tiny").evaluation
FULL = replace(BARE, judge={"url": "http://localhost:1", "model": "m"}, scorers={"clip": {}})
ONE, TWO = [Path("a.png")], [Path("a.png"), Path("b.png")]


def names(prompt: str, references: list[Path], capability: str, settings=BARE) -> list[str]:
    checks = checks_for(prompt, references, capability=capability, settings=settings)
    assert all(c["capability"] == capability for c in checks)
    return [c["verifier"] for c in checks]


def test_a_check_judges_only_the_complaint():
    assert names('a poster, "SALE"', [], "typography") == ["text"]
    assert names('a poster, "SALE", held by a woman', [], "portrait") == []  # the right word says nothing about hands
    assert names("a poster about a sale", [], "typography") == []
    assert names('a poster, "!!!"', [], "typography") == []  # nothing comparable is quoted
    assert names("a canoe and two golden retrievers", [], "object") == ["imagenet", "imagenet"]
    assert names("a canoe and two golden retrievers", [], "count") == []
    assert names("the same dog at the beach", ONE, "identity") == ["identity"]
    assert names("make the sky red", ONE, "visual_consistency") == ["unchanged"]
    assert names("combine both", TWO, "visual_consistency") == []
    assert names("make the sky red", ONE, "editing") == []  # an edit returned unchanged would pass


def test_judges_are_asked_where_they_are_configured():
    assert names("a red lorry", [], "object", FULL) == ["alignment", "question"]
    assert names("make the sky red", ONE, "editing", FULL) == ["edit"]
    (check,) = checks_for("a man", [], capability="portrait", settings=FULL, said="six fingers")
    assert "'six fingers'" in check["question"] and check["question"].endswith("a man")


def test_every_maker_names_verifiers_that_exist():
    asked = [
        checks_for('a canoe, "OPEN"', references, capability=c, settings=FULL)
        for references in ([], ONE)
        for c in ("typography", "identity", "visual_consistency", "object")
    ]
    made = {c["verifier"] for checks in asked for c in checks}
    assert len(MAKERS) <= len(made) and made <= {*verifiers(), "question", "edit"}
