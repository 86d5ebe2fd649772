"""Containers: formats by their first bytes, and a PNG without what readers stumble over."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from flywheel.core.container import chunks_before_pixels, name_of, readable_metadata
from flywheel.core.image import decode, open_image, upright_size
from tests.flywheel.core.pictures import SIZE, chunk, exif, saved, scene, tiff_exif, with_chunks


def test_metadata_decides_about_no_pixel():
    png = saved(scene(), "PNG")
    info = PngImagePlugin.PngInfo()
    info.add_itxt("workflow", "[1, 2, 3] " * 400_000, zip=True)
    damaged = bytearray(with_chunks(png, chunk(b"tEXt", b"Comment\0hello")))
    damaged[damaged.index(b"hello")] ^= 1
    odd = [
        with_chunks(png, chunk(b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03")),
        with_chunks(png, chunk(b"iCCP", b"x\0\0not compressed")),
        with_chunks(png, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**25)))),
        saved(scene(), "PNG", pnginfo=info),
        bytes(damaged),
    ]
    for data in odd:
        assert np.array_equal(np.asarray(decode(data)), np.asarray(scene()))
    jpeg = saved(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode(jpeg).size == SIZE and upright_size(open_image(jpeg)) == SIZE


@pytest.mark.parametrize(
    "piece",
    [
        chunk(b"pHYs", b"\0"), chunk(b"gAMA", b""), chunk(b"cHRM", b"\0\0"), chunk(b"tIME", b"\0"),
        chunk(b"sBIT", b""), chunk(b"bKGD", b"\0"), chunk(b"zTXt", b"Comment\0\0" + b"\xff" * 40),
        chunk(b"tRNS", b"\0"), chunk(b"eXIf", b""), chunk(b"iTXt", b""), chunk(b"prVt", bytes(99)),
        chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(3_000_000))),
    ],
)  # fmt: skip
@pytest.mark.parametrize("late", [False, True])
def test_an_odd_chunk_costs_nothing(piece: bytes, late: bool):
    data = with_chunks(saved(scene(), "PNG"), piece, late=late)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(scene()))


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt"])
@pytest.mark.parametrize("keyword", [b"Raw profile type exif", b"Raw profile type APP1"])
def test_raw_profiles_of_either_name_turn_the_picture(keyword: bytes, kind: bytes):
    body = b"Exif\0\0" + tiff_exif(6)
    text = b"\nexif\n%8d\n" % len(body) + body.hex().encode() + b"\n"
    held = keyword + (b"\0\0" + zlib.compress(text) if kind == b"zTXt" else b"\0" + text)
    assert upright_size(open_image(with_chunks(saved(scene(), "PNG"), chunk(kind, held)))) == SIZE[::-1]


def test_exif_with_its_jpeg_prefix_is_read():
    data = with_chunks(saved(scene(), "PNG"), chunk(b"eXIf", b"Exif\0\0" + tiff_exif(6)))
    assert upright_size(open_image(data)) == SIZE[::-1]


def test_pixels_and_animation_stay_as_they_are():
    data = saved(scene(), "PNG", save_all=True, append_images=[Image.new("RGB", SIZE, "red")])
    kept = Image.open(io.BytesIO(readable_metadata(data)))
    assert kept.n_frames == 2 and np.array_equal(np.asarray(kept), np.asarray(scene()))
    jpeg = saved(scene(), "JPEG", exif=exif(6))
    assert readable_metadata(jpeg) is jpeg
    for length in range(0, len(data), 37):
        readable_metadata(data[:length])


def test_only_sound_chunks_before_the_pixels_are_listed():
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b")
    data = with_chunks(saved(scene(), "PNG", pnginfo=info), chunk(b"gAMA", b"1234"), chunk(b"gAMA", b"late"))
    damaged = with_chunks(data, chunk(b"cICP", b"abcd")[:-1] + b"!")
    assert chunks_before_pixels(damaged) == {b"IHDR": data[16:29], b"tEXt": b"a\0b", b"gAMA": b"1234"}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "ICO", "PPM"])
def test_formats_by_their_first_bytes(form: str):
    data = saved(scene(), form)
    assert name_of(data) == form and name_of(b"") == name_of(data[-20:]) == name_of(b"hello, world") == ""
