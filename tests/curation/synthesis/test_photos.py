"""Edits of whole photographs come in verified pairs."""

from __future__ import annotations

import io

from PIL import Image
from sklearn.datasets import load_sample_images

from curation.synthesis.photos import OPERATIONS, RESTORATIONS, STYLES, photo_edits
from curation.verify.checks import passed, verify


def test_restorations_and_styles_keep_what_is_shown(photographs: tuple[bytes, bytes]) -> None:
    samples = list(photo_edits(photographs[0], seed="0", operations=(*RESTORATIONS, *STYLES)))
    assert len(samples) == 2 * len(RESTORATIONS + STYLES)
    assert all(passed(o) for o in verify([s.item for s in samples], [s.checks for s in samples]))
    assert samples == list(photo_edits(photographs[0], seed="0", operations=(*RESTORATIONS, *STYLES)))


def test_photo_edits_come_in_pairs_of_operation_and_inverse():
    out = io.BytesIO()
    Image.fromarray(load_sample_images().images[0]).crop((0, 0, 240, 180)).save(out, "JPEG")
    samples = list(photo_edits(out.getvalue(), seed="0"))
    assert len(samples) == 2 * len(OPERATIONS)
    for forward, backward in zip(samples[::2], samples[1::2]):
        assert forward.task == backward.task == "ti2i"
        assert (forward.image, forward.references) == (backward.references[0], (backward.image,))
        assert forward.image != backward.image
    assert all(passed(o) for o in verify([s.item for s in samples], [s.checks for s in samples]))
    assert samples == list(photo_edits(out.getvalue(), seed="0"))
