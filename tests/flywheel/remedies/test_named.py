"""What the captions of a pool name."""

from __future__ import annotations

import pytest

from flywheel.remedies.named import Names
from flywheel.signals.suite import Prompt

CAPTIONS = [
    "a photo of a Great grey owl",
    "two canoes on a lake",
    "leaves, berries and a tea-pot",
    "a (c++) logo",
    "foxes",
]


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("great grey owl", True), ("canoe", True), ("leaf", True), ("berry", True), ("tea pot", True), ("fox", True),
        ("grey", True), ("can", False), ("canoeing", False), ("owl nest", False), ("zebra", False), ("c++", False),
    ],
)  # fmt: skip
def test_names_are_whole_words_singular_or_plural(name: str, known: bool):
    assert Names(CAPTIONS).known(name) is known


def test_what_is_absent_is_asked_for_by_name_by_a_check_of_that_capability():
    def check(verifier: str, capability: str, **more: object) -> dict:
        return {"verifier": verifier, "capability": capability, **more}

    asks = [check("imagenet", "object", object="zebra"), check("imagenet", "scene", object="canoe"),
            check("ocr", "typography", text="zebra")]  # fmt: skip
    prompt, names = Prompt("p", "a zebra in a canoe", "t2i", (), tuple(asks)), Names(CAPTIONS)
    assert [names.absent(prompt, c) for c in ("object", "scene", "typography", "none")] == [True, False, False, False]
    assert Names([]).absent(prompt, "scene")
