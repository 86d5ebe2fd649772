"""Damage inside the scan of a JPEG is found; what only lacks its end, or has odd metadata, is read."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from flywheel.core.image import BadImage, decode, decode_working
from flywheel.core.jpeg import scans_are_complete
from flywheel.core.scorer import Item
from tests.curation.corpus import texture
from tests.flywheel.core.pictures import saved, scene


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_damage_inside_a_scan_is_found_and_a_missing_end_marker_is_none(mode: str, options: dict):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (160, 200, 3), np.uint8)).convert(mode)
    whole = saved(noise, "JPEG", quality=80, **options)
    assert np.array_equal(np.asarray(decode(whole[:-2])), np.asarray(decode(whole)))
    for share in (0.3, 0.6, 0.9):
        cut = whole[: int(len(whole) * share)]
        for data in (cut, cut + b"\xff\xd9"):
            with pytest.raises(BadImage, match="truncated or corrupt"):
                decode(data)
            with pytest.raises(BadImage):
                decode_working(data)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}])
def test_a_gray_half_is_refused_by_every_decode(options: dict):
    """A JPEG cut at 60 % whose end marker was put back decodes to flat gray below."""
    data = saved(texture(1, 640, 480), "JPEG", quality=85, **options)
    cut = data[: int(len(data) * 0.6)] + b"\xff\xd9"
    for seen in (
        decode,
        decode_working,
        lambda d: Item(d).upright,
        lambda d: Item(d).pixels,
        lambda d: Item(d).at_least(64),
    ):
        with pytest.raises(BadImage, match="truncated or corrupt"):
            seen(cut)


def test_zeros_inside_a_scan_are_found():
    data = saved(texture(2, 320, 240), "JPEG", quality=90)
    middle = len(data) // 2
    with pytest.raises(BadImage, match="truncated or corrupt"):
        decode(data[:middle] + bytes(400) + data[middle + 400 :])


@pytest.mark.parametrize(
    "body", [b"ICC_PROFILE\0\x02\x05" + bytes(50), b"ICC_PROFILE\0\x01", b"Exif\0\0no tiff", b"MPF\0II*\0", b"Adobe"]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_odd_metadata_is_not_damage(mode: str, body: bytes):
    plain = saved(scene().convert(mode), "JPEG", quality=95)
    marker = {b"Ex": b"\xff\xe1", b"Ad": b"\xff\xee"}.get(body[:2], b"\xff\xe2")
    odd = plain[:2] + marker + struct.pack(">H", len(body) + 2) + body + plain[2:]
    assert np.array_equal(np.asarray(decode(odd)), np.asarray(decode(plain)))


def test_scans_of_a_progressive_file_that_misses_some_are_not_complete():
    data = saved(texture(3, 200, 150), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert scans_are_complete(data) and not scans_are_complete(data[:last])
    with pytest.raises(BadImage):
        decode(data[:last])
