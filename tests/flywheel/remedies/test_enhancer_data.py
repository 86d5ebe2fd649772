"""The enhancer's data by reverse engineering."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from flywheel.cases.events import Case
from flywheel.remedies.enhancer_data import classify, degrade, examples, load_examples, quotations, write
from flywheel.remedies.held_out import HeldOut
from flywheel.signals.suite import Prompt
from tests.flywheel.remedies.wordings import FINE


def test_classes():
    assert [classify(c) for c in FINE] == ["Portrait", "Text", "General", "General", "Complex Text", "General"]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("fine", FINE)
def test_a_degraded_prompt_keeps_its_quotes_and_its_reasoning_says_what_was_lost(fine: str, seed: int):
    example = degrade(fine, random.Random(seed))
    assert example and example.fine == fine and example.short != fine
    assert quotations(example.short) == quotations(fine)
    assert example.short.strip() and example.kind in example.reasoning
    for word in set(fine.replace(",", "").lower().split()) - set(example.short.replace(",", "").lower().split()):
        spoken = "colloquial" in example.degradations and word in ("one", "two", "three")
        assert spoken or word in example.reasoning.lower(), (word, example)


def test_no_example_is_near_an_evaluation_prompt_and_classes_of_cases_come_first():
    held_out = HeldOut(["three green stars on a white card", "a bowl of fruits on a wooden table"])
    few = examples(FINE, held_out, count=3, seed=0, kinds={"Text": 2, "Complex Text": 1})
    assert [e.kind for e in few[:2]] == ["Text", "Complex Text"]
    everything = examples(FINE, held_out, count=100, seed=0, kinds={})
    assert all("stars" not in e.fine for e in everything) and len(everything) == 5


def test_a_suite_case_is_only_tested_on_and_another_is_trained_on_with_the_wording_that_passed(tmp_path: Path):
    suite = [Prompt("p1", "pls draw 2 red squares", "t2i", (), ({"verifier": "count", "capability": "count"},))]
    cases = [
        Case("c1", 1, "count", "prompt_enhancement", "p1", "pls draw 2 red squares", "routed"),
        Case("c2", 1, "count", "prompt_enhancement", "feedback-1", "gimme a big cat", "routed"),
    ]
    rewritten = {"c1": "two red squares", "c2": "a large cat, centred, soft light"}
    write(tmp_path, cases, FINE, suite, rewritten, count=4, seed=0)
    trained = load_examples(tmp_path / "train.jsonl")
    assert [e.fine for e in trained if e.short == "gimme a big cat"] == ["a large cat, centred, soft light"]
    assert not any("red squares" in e.fine + e.short for e in trained)
    tested = [json.loads(line) for line in (tmp_path / "regression.jsonl").read_text().splitlines()]
    assert [(t["case_id"], len(t["checks"])) for t in tested] == [("c1", 1), ("c2", 0)]
