"""Pictures of training rows: their exact size, and their format."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from curation.shards.fit import fit, fit_mask
from tests.curation.corpus import encoded, texture


@pytest.mark.parametrize("kind, stays", [("JPEG", "JPEG"), ("PNG", "PNG"), ("WEBP", "PNG")])
@pytest.mark.parametrize("turn", [0, 90])
def test_a_fitted_picture_has_the_size_asked_for(kind: str, stays: str, turn: int) -> None:
    with Image.open(io.BytesIO(fit(encoded(texture(1, 90, 60), kind), 48, 32, turn))) as picture:
        assert (picture.size, picture.format) == ((48, 32), stays)


def test_a_mask_is_black_and_white_and_grows_as_far_as_a_change_spreads() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[30:34, 30:34] = 255
    out = io.BytesIO()
    Image.fromarray(mask).save(out, "PNG")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(fit_mask(out.getvalue(), 64, 64)))), mask)
    small = np.asarray(Image.open(io.BytesIO(fit_mask(out.getvalue(), 32, 32))))
    assert set(np.unique(small)) == {0, 255} and small[15:17, 15:17].all()
    assert (small > 0).sum() == 8 * 8, "two pixels, and three more on each side"
