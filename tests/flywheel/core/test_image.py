"""The decode of images, and the one that scorers share, against PIL."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flywheel.core.image import BadImage, decode, decode_at_least, open_image
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded, texture, turned

KINDS = {
    "baseline": {"quality": 90},
    "progressive": {"quality": 80, "progressive": True},
    "restarts": {"quality": 95, "restart_marker_blocks": 2, "subsampling": 0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_jpeg_is_refused_exactly_where_pil_refuses_it(kind: str) -> None:
    whole = encoded(texture(1, 200, 150), "JPEG", **KINDS[kind])
    refused = 0
    for length in [*range(300, len(whole), 173), *range(len(whole) - 12, len(whole) + 1)]:
        try:
            expected = np.asarray(decode(whole[:length]))
        except BadImage:
            with pytest.raises(BadImage):
                _ = Item(whole[:length]).pixels
            refused += 1
        else:
            assert np.array_equal(Item(whole[:length]).pixels, expected)
    assert refused > 15


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_what_is_not_reduced_is_as_pil_decodes_it(mode: str) -> None:
    data = encoded(texture(2, 130, 99).convert(mode), "JPEG", quality=90)
    assert np.array_equal(Item(data).pixels, np.asarray(decode(data)))


def test_a_garbled_jpeg_is_what_pil_makes_of_it() -> None:
    whole = encoded(texture(3), "JPEG", quality=90)
    for spoiled in (whole + b"trailing", whole[:-2] + b"extra" + whole[-2:], whole[:700] + bytes(40) + whole[740:]):
        try:
            expected = np.asarray(decode(spoiled))
        except BadImage:
            with pytest.raises(BadImage):
                _ = Item(spoiled).pixels
        else:
            assert np.array_equal(Item(spoiled).pixels, expected)


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_turned_as_pil_turns_it(orientation: int) -> None:
    data = turned(texture(4, 60, 40), orientation)
    assert np.array_equal(Item(data).pixels, np.asarray(decode(data)))


@pytest.mark.parametrize(
    ("size", "read", "working"),
    [
        ((512, 300), (512, 300), (512, 300)),
        ((1023, 700), (1023, 700), (512, 350)),
        ((1024, 768), (512, 384), (512, 384)),
        ((2300, 1740), (575, 435), (512, 387)),
        ((9000, 600), (1125, 75), (512, 34)),
    ],
)
def test_large_jpegs_are_read_at_reduced_scale(
    size: tuple[int, int], read: tuple[int, int], working: tuple[int, int]
) -> None:
    data = encoded(texture(5, 90, 60).resize(size), "JPEG", quality=90)
    assert decode_at_least(open_image(data), data, 512).shape[1::-1] == read
    pixels = Item(data).pixels
    assert pixels.shape[1::-1] == working
    expected = decode(data).resize(working, Image.Resampling.BOX)
    assert np.abs(pixels.astype(int) - np.asarray(expected)).mean() < 2
