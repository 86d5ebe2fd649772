"""Edit pairs from photographs: exact masks, inverse pairs, instructions."""

from __future__ import annotations

import random

import numpy as np
import pytest

from curation.synthesis.masked import KINDS, masked_edits
from curation.verify.checks import passed, verify
from tests.curation.synthesis.edits import edits, pixels


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_changes_outside_the_mask_and_something_inside(kind: str, photographs: tuple[bytes, bytes]) -> None:
    forward, backward = edits(kind, photographs)
    mask = pixels(forward.mask)
    change = np.abs(pixels(forward.image) - pixels(forward.references[0])).max(axis=2)
    assert set(np.unique(mask)) == {0, 255} and mask.shape == change.shape
    assert change[mask == 0].max(initial=0) == 0
    assert change[mask > 0].mean() > 5
    assert (backward.image, backward.references) == (forward.references[0], (forward.image,))
    assert backward.mask == forward.mask and backward.caption != forward.caption
    assert edits(kind, photographs) == [forward, backward] != edits(kind, photographs, seed=1)


def test_what_is_said_names_the_subject(photographs: tuple[bytes, bytes]) -> None:
    assert edits("recolour", photographs)[0].caption.startswith("make the dahlia ")
    assert edits("object", photographs)[1].caption.startswith("remove the dahlia on the ")
    flower, temple = photographs
    unknown = masked_edits("recolour", flower, "Dahlia, f/2.8", temple, "", random.Random(0))
    assert next(unknown).caption.startswith("make the subject ")


def test_an_edited_text_is_read_back(photographs: tuple[bytes, bytes]) -> None:
    pairs = [sample for seed in range(2) for sample in edits("text", photographs, seed)]
    asked = [s for s in pairs if s.checks]
    assert len(asked) >= 2
    assert all(passed(o) for o in verify([s.item for s in asked], [s.checks for s in asked]))
    wrong = [{**asked[0].checks[0], "text": "something else"}]
    assert not passed(verify([asked[0].item], [wrong])[0])
