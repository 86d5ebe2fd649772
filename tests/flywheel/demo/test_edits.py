"""Edits: both pictures from one state, and checks that the picture before the edit does not pass."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image

from flywheel.demo.cards import single_meaning
from flywheel.demo.edits import keep_edits, move_edits, recolour_edits, reword_edits
from tests.curation.verify.judged import judged


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16)


@pytest.mark.parametrize("recipe", [recolour_edits(), move_edits(), keep_edits()], ids=lambda r: r.name)
def test_an_edit_passes_and_its_reference_does_not(recipe) -> None:
    edit = random.Random(3).choice(recipe.variants)
    sample = recipe.render(edit, random.Random(4))
    (before,) = sample.references
    assert all(o.passed for o in judged(sample.image, *sample.checks, references=(before,)))
    assert not all(o.passed for o in judged(before, *sample.checks, references=(before,)))


def test_only_what_the_edit_states_changes() -> None:
    sample = recolour_edits().render(recolour_edits().variants[0], random.Random(0))
    before, after = pixels(sample.references[0]), pixels(sample.image)
    changed = np.abs(before - after).max(axis=2) > 0
    assert 0.02 < changed.mean() < 0.35  # the shape, not its ground
    assert sample.task == "ti2i" and sample.caption.split()[0] in ("make", "change", "paint")


def test_meanings_are_the_instructions_and_those_of_both_pictures() -> None:
    recipe = recolour_edits()
    edit = recipe.variants[0]
    asked, before, after = recipe.meanings(edit)
    assert asked is not None and asked.colors == (edit.before.color, edit.after.color)
    assert (before, after) == (*single_meaning(edit.before), *single_meaning(edit.after))


def test_no_variant_changes_nothing() -> None:
    for recipe in (recolour_edits(), move_edits(), reword_edits(), keep_edits()):
        assert recipe.variants and all(edit.before != edit.after for edit in recipe.variants)


def test_a_word_edit_asks_for_the_new_word() -> None:
    edit = reword_edits().variants[0]
    sample = reword_edits().render(edit, random.Random(0))
    assert sample.checks == ({"verifier": "text", "capability": "text_editing", "text": edit.after.word},)
    assert f'"{edit.before.word}"' in sample.caption and f'"{edit.after.word}"' in sample.caption
