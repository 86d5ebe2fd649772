"""Bandwidth of native and of enlarged pictures, and blocks of worn ones."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from curation.scorers import load
from curation.scorers.detail import bandwidth, blockiness
from flywheel.core.image import BadImage
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded
from tests.curation.scorers.examples import row_of, scene

BLOCKY = 1.33  # the policy's


@pytest.mark.parametrize("kernel", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
def test_enlarged_pictures_have_a_narrow_band(kernel: Image.Resampling) -> None:
    small = scene(1)
    native = row_of("detail", Item(encoded(small, "JPEG", quality=92)))
    assert native["bandwidth"] > 0.7 and native["native_edge"] > 360
    large = row_of("detail", Item(encoded(small.resize((2048, 2048), kernel), "JPEG", quality=92)))
    assert large["bandwidth"] < 0.35 and large["native_edge"] < 720
    twice = row_of("detail", Item(encoded(small.resize((1024, 1024), kernel), "JPEG", quality=92)))
    assert large["bandwidth"] < twice["bandwidth"] < native["bandwidth"]


@pytest.mark.parametrize("times", [3.3, 4, 8])
@pytest.mark.parametrize("quality", [75, 92])
def test_repeated_pixels_hold_no_detail(times: float, quality: int) -> None:
    size = round(640 / times), round(512 / times)
    small = scene(3).resize(size, Image.Resampling.LANCZOS)
    large = small.resize((640, 512), Image.Resampling.NEAREST)
    assert row_of("detail", Item(encoded(large, "JPEG", quality=quality)))["bandwidth"] < 0.42


def test_codes_are_made_of_squares() -> None:
    """As sharp as they are large, unlike a photograph of a few pixels."""
    code = np.random.default_rng(1).integers(0, 2, (30, 30), dtype=np.uint8).repeat(20, axis=0).repeat(20, axis=1)
    for data in (encoded(Image.fromarray(code * 255)), encoded(Image.fromarray(code * 255), "JPEG", quality=92)):
        assert row_of("detail", Item(data))["bandwidth"] > 0.6


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


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_blocks_outlive_the_quantisation_table(form: str) -> None:
    """A JPEG of quality 12, saved again at 95 or as PNG; the grid is found where a crop has moved it."""
    sharp = scene(2)
    worn = Image.open(io.BytesIO(encoded(sharp, "JPEG", quality=12)))
    again = {"quality": 95} if form == "JPEG" else {}
    clean, blocky, cropped = (
        row_of("detail", Item(encoded(p, form, **again)))["blockiness"]
        for p in (sharp, worn, worn.crop((5, 3, worn.width, worn.height)))
    )
    assert clean < 1.2 < BLOCKY < min(blocky, cropped)


def test_charts_and_gradients_are_not_blocky() -> None:
    chart = np.full((480, 640), 250, np.uint8)
    for bar in range(8):
        chart[400 - 40 * bar :, 40 + 64 * bar : 80 + 64 * bar] = 60
    dark = np.linspace(2, 30, 640)[None].repeat(480, axis=0) + np.random.default_rng(0).normal(0, 1, (480, 640))
    saved = Image.open(io.BytesIO(encoded(Image.fromarray(dark.astype(np.uint8)), "JPEG", quality=90)))
    assert blockiness(chart) < BLOCKY and blockiness(np.asarray(saved)) < BLOCKY
    assert blockiness(np.zeros((20, 20), np.uint8)) == 1
