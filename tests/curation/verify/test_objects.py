"""What a caption names becomes a check, and a classifier judges it on photographs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.verify.checks import verify
from curation.verify.objects import object_checks
from flywheel.core.scorer import Item
from tests.curation.verify.judged import judged, png


@pytest.mark.parametrize(
    ("caption", "names"),
    [
        ("a photo of a great grey owl", ["great grey owl"]),
        ("Two golden retrievers beside a Canoe, and a canoe", ["golden retriever", "canoe"]),
        ("red foxes and daisies", ["red fox", "daisy"]),
        ("a jack-o'-lantern", ["jack o lantern"]),
        ("a dog in the park", []),  # a generic word is no class
        ("pianos", []),  # grand pianos and uprights are
        ("a catalogue", []),  # whole words only
        ("", []),
    ],
)
def test_names_of_classes_are_found_in_captions(caption: str, names: list[str]) -> None:
    assert [c["object"] for c in object_checks(caption)] == names


def test_a_name_that_two_classes_share_stands_for_both() -> None:
    (check,) = object_checks("cranes at dawn", capability="animals")
    assert len(check["classes"]) == 2 and check["capability"] == "animals"


def test_photographs_show_what_their_captions_name_and_not_what_others_name(photos: Path) -> None:
    rows = [json.loads(line) for line in (photos / "captions.jsonl").read_text().splitlines()][::25]
    items = [Item((photos / r["file"]).read_bytes()) for r in rows]
    checks = [object_checks(r["caption"]) for r in rows]
    right = [o.passed for (o,) in verify(items, checks)]
    wrong = [o.passed for (o,) in verify(items, checks[1:] + checks[:1])]
    assert right.count(True) >= 9 and not any(wrong)


def test_a_plain_field_shows_no_object_and_a_check_without_classes_does_not_apply() -> None:
    (check,) = object_checks("a tench")
    plain = png([[[90, 120, 90]] * 64] * 64)
    outcome, empty = judged(plain, check, {**check, "classes": []})
    assert outcome.passed is False and outcome.evidence["expected"] == "tench" and len(outcome.evidence["seen"]) == 3
    assert empty.passed is None
