"""Candidates on photographs: edits in other words than the suite's, over many pictures."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from curation.synthesis.photos import OPERATIONS
from flywheel.cases.events import Case
from flywheel.demo.word_cards import word_caption, word_cards
from flywheel.presets import load_preset
from flywheel.remedies.candidates import BasePool, Request, take, teachable
from flywheel.signals.pool_suite import PICTURE_EDITING
from flywheel.signals.suite import Prompt
from tests.training.snapshots import png, write_snapshot

SIDE = 96
SUITE = [  # what a suite of photographs asks for: every operation, forward and backward
    Prompt(f"edit-{op.name}-{n}", text, "ti2i", (), ())
    for op in OPERATIONS
    for n, text in enumerate((*op.as_asked.forward, *op.as_asked.backward))
]


def row(number: int, picture: Image.Image) -> dict[str, Any]:
    size = dict.fromkeys(("width", "height", "source_width", "source_height"), SIDE)
    caption = f"a photo of place {number}"
    words = [{"kind": "general", "text": caption, "origin": "source"}]
    common = {"task": "t2i", "stream": "t2i", "slice": "base", "references": [], "captions": words}
    return {"sample_id": f"p{number}", "caption": caption, "image": png(picture), **common, **size}


@pytest.fixture
def pool(tmp_path: Path) -> BasePool:
    """Eight photographs, in the bucket of 64 pixels."""
    temple, flower = (Image.fromarray(pixels) for pixels in load_sample_images().images)
    crops = [p.crop((x, y, x + 200, y + 200)).resize((SIDE, SIDE)) for p in (temple, flower)
             for x, y in ((40, 40), (340, 40), (40, 200), (340, 200))]  # fmt: skip
    rows = [row(n, crop) for n, crop in enumerate(crops)]
    return BasePool(write_snapshot(tmp_path, [{"rows": rows, "size": (SIDE, SIDE)}]), SUITE, load_preset("tiny"))


def test_edits_for_training_say_what_no_suite_asks_and_are_of_many_pictures(pool: BasePool):
    case = Case("c", 1, PICTURE_EDITING, "pretraining", "edit-warm-0", SUITE[0].text, "routed")
    rows, refused = take(Request(PICTURE_EDITING, 12, (case,), 0), pool, None)
    asked = {p.text for p in SUITE}
    assert len(rows) == 12 and asked.isdisjoint(r["caption"] for r in rows)
    assert [r for r in refused if r["filter"] == "evaluation_prompt"] == []
    operations = Counter(r["recipe"].removesuffix("-inverse") for r in rows)
    assert len(operations) >= 4 and max(operations.values()) <= 4, "no operation is most of them"
    before = Counter(r["references"][0] if not r["recipe"].endswith("-inverse") else r["image"] for r in rows)
    assert len(before) >= 6, "few edits of each picture"


def test_a_suite_that_uses_up_an_operations_words_costs_that_operation_alone(pool: BasePool):
    warm = OPERATIONS[0]
    every = [Prompt(f"w{n}", text, "ti2i", (), ()) for n, text in enumerate(warm.forward)]
    rows, _ = take(Request(PICTURE_EDITING, 10, (), 0), BasePool(pool.manifest, every, pool.preset), None)
    assert len(rows) == 10 and not [r for r in rows if r["recipe"].startswith("photo-warm")]


def test_what_a_case_asks_for_by_name_is_retrieved_by_name_where_the_pool_has_it(pool: BasePool):
    def ask(number: int, name: str) -> Prompt:
        check = {"verifier": "imagenet", "capability": "object", "object": name, "classes": [1]}
        return Prompt(f"o{number}", f"{name} seen from the side", "t2i", (), (check,))

    suite = [ask(1, "place 3"), ask(2, "zebra")]
    cases = tuple(Case(p.prompt_id, 1, "object", "pretraining", p.prompt_id, p.text, "routed") for p in suite)
    preset = replace(pool.preset, plan=replace(pool.preset.plan, retrieval_similarity=-1.0))
    made = BasePool(pool.manifest, suite, preset)
    named, _ = take(Request("object", 8, cases[:1], 0), made, None)
    assert {r["caption"] for r in named} == {"a photo of place 3"} and len(named) == 8, "the others are variants of it"
    unnamed, _ = take(Request("object", 8, cases[1:], 0), made, None)
    assert len({r["caption"] for r in unnamed}) == 4, "nothing names it: what is near"
    assert {r["recipe"] for r in (*named, *unnamed)} == {"retrieved", "augmented"}, "shapes on cards are no zebras"


def test_what_is_rehearsed_is_judged_as_the_suite_judges(pool: BasePool):
    def prompt(capability: str, **check: Any) -> Prompt:
        return Prompt(f"q-{capability}", f"a prompt of {capability}", "t2i", (), ({"capability": capability, **check},))

    photographs = prompt("object", verifier="question", question="Is it a zebra?")
    written = prompt("typography", verifier="text", text="OWL")
    edit = prompt(PICTURE_EDITING, verifier="edit")
    unknown = prompt("photorealism", verifier="alignment")
    suite = [photographs, written, edit, unknown]
    assert teachable(suite, suite) == {"typography", PICTURE_EDITING}, "cards of shapes teach nobody to draw a zebra"
    said = (word_caption(card, random.Random(0)) for card in word_cards().variants)
    every = [Prompt(str(n), text, "t2i", (), ()) for n, text in enumerate(said)]
    assert teachable(suite, [*suite, *every]) == {PICTURE_EDITING}, "every word is held out"
    rehearsed = Request("typography", 3, (), 0)
    rows, _ = take(rehearsed, replace(pool, suite=suite), None)
    assert [r["slice"] for r in rows] == ["typography"] * 3 and "retrieved" not in {r["recipe"] for r in rows}


def test_text_is_taught_whoever_judges_it(pool: BasePool):
    check = {"verifier": "question", "capability": "typography", "question": "Does the sign say OPEN?"}
    prompt = Prompt("q", 'a sign that says "OPEN"', "t2i", (), (check,))
    case = Case("q", 1, "typography", "pretraining", "q", prompt.text, "routed")
    rows, _ = take(Request("typography", 4, (case,), 0), BasePool(pool.manifest, [prompt], pool.preset), None)
    assert {r["recipe"] for r in rows} - {"retrieved"} == {"word-card"}
