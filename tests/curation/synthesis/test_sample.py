"""A synthetic sample's identity, and how scorers see it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from curation.synthesis.sample import Sample, Unsuitable

PLAIN = Sample(b"picture", "a cat", "t2i", (), (), "card")
EDIT = Sample(b"picture", "make it red", "ti2i", (b"one", b"other"), (), "recolour")


def test_a_picture_is_named_by_its_bytes_alone() -> None:
    assert PLAIN.sample_id == hashlib.sha256(b"picture").hexdigest()
    assert replace(PLAIN, caption="a dog", recipe="other").sample_id == PLAIN.sample_id


def test_an_edit_is_named_by_all_that_it_is() -> None:
    changes = (
        {"image": b"x"},
        {"caption": "make it blue"},
        {"references": (b"other", b"one")},
        {"references": (b"one",)},
    )
    ids = {EDIT.sample_id, PLAIN.sample_id, *(replace(EDIT, **c).sample_id for c in changes)}
    assert len(ids) == 6 and replace(EDIT, mask=b"m", recipe="x").sample_id == EDIT.sample_id


def test_scorers_see_everything_but_the_recipe() -> None:
    item = EDIT.item
    assert (item.image, item.caption, item.task, item.references) == (
        b"picture",
        "make it red",
        "ti2i",
        (b"one", b"other"),
    )


def test_a_picture_that_does_not_suit_is_no_fault_of_the_user() -> None:
    assert issubclass(Unsuitable, ValueError)
