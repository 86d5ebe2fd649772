"""Bandwidth of native and of enlarged pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from curation.scorers import load
from curation.scorers.detail import bandwidth
from flywheel.core.image import BadImage
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded
from tests.curation.scorers.examples import row_of, scene


@pytest.mark.parametrize("kernel", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
def test_enlarged_pictures_have_a_narrow_band(kernel: Image.Resampling) -> None:
    small = scene(1)
    native = row_of("detail", Item(encoded(small, "JPEG", quality=92)))
    assert native["bandwidth"] > 0.7 and native["native_edge"] > 360
    large = row_of("detail", Item(encoded(small.resize((2048, 2048), kernel), "JPEG", quality=92)))
    assert large["bandwidth"] < 0.35 and large["native_edge"] < 720
    twice = row_of("detail", Item(encoded(small.resize((1024, 1024), kernel), "JPEG", quality=92)))
    assert large["bandwidth"] < twice["bandwidth"] < native["bandwidth"]


def test_bandwidth_of_nothing() -> None:
    assert bandwidth(np.full((64, 64), 9, np.uint8)) is None
    assert bandwidth(np.zeros((8, 300), np.uint8)) is None


def test_small_pictures_are_not_decoded_where_only_large_ones_matter() -> None:
    data = encoded(scene(5, 128), "JPEG")
    cut = data[: len(data) // 2]
    assert set(row_of("detail", Item(cut), min_edge=200).values()) == {None}
    (row,) = load("detail").score([Item(cut)])
    assert isinstance(row, BadImage)
    assert load("detail", min_edge=200).version != load("detail").version
