"""Samples of any depth become 8 bits by their range, and what is transparent shows white."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from flywheel.core.image import decode, decode_working, describe
from flywheel.core.samples import scaled
from tests.curation.corpus import texture
from tests.flywheel.core.pictures import SIZE, chunk, saved, scene, with_chunks


def ramp(dtype: str, scale: float, offset: float = 0) -> np.ndarray:
    return (np.linspace(0, 1, 256)[None].repeat(16, 0) * scale + offset).astype(dtype)


DEEP = {
    "16 bits": (ramp("uint16", 65535), "PNG"),
    "16 bits, TIFF": (ramp("uint16", 65535), "TIFF"),
    "float to 1": (ramp("float32", 1), "TIFF"),
    "float to 255": (ramp("float32", 255), "TIFF"),
    "float to 65535": (ramp("float32", 65535), "TIFF"),
    "32 bits": (ramp("int32", 65535), "TIFF"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_samples_are_scaled(kind: str):
    array, form = DEEP[kind]
    data = saved(Image.fromarray(array), form)
    gray = np.asarray(decode(data))
    assert np.abs(gray[0, :, 0].astype(int) - np.arange(256)).max() <= 1 and (gray[..., 0] == gray[..., 2]).all()
    assert describe(data).depth in (16, 32)


def cut_out(mode: str, below: tuple[int, int, int] = (255, 0, 255)) -> Image.Image:
    """A square on nothing; the transparent pixels have another colour."""
    picture = Image.new("RGBA", SIZE, (*below, 0))
    ImageDraw.Draw(picture).rectangle((16, 8, 47, 31), fill=(0, 90, 30, 255))
    return picture.convert(mode)


@pytest.mark.parametrize(
    "data",
    [
        saved(cut_out("RGBA"), "PNG"),
        saved(cut_out("RGBA", (0, 0, 0)), "WEBP", lossless=True, exact=True),
        saved(cut_out("LA"), "PNG"),
        saved(cut_out("RGBA").quantize(8), "PNG"),
        saved(Image.new("RGB", SIZE, (255, 0, 255)), "PNG", transparency=(255, 0, 255)),
        saved(Image.new("L", SIZE, 7), "PNG", transparency=7),
        saved(Image.fromarray(np.full(SIZE[::-1], 9, np.uint16)), "PNG", transparency=9),
        saved(cut_out("RGBA"), "TIFF"),
    ],
    ids=["RGBA", "WebP", "LA", "palette", "tRNS RGB", "tRNS gray", "tRNS 16 bits", "TIFF"],
)
def test_what_is_transparent_shows_white(data: bytes):
    for pixels in (np.asarray(decode(data)), decode_working(data)):
        assert (pixels[0, 0] == 255).all() and (pixels[-1, -1] == 255).all()
    assert decode(data).info == {}


@pytest.mark.parametrize("seed", [1, 2])
def test_sixteen_bits_of_gray_look_as_their_eight_do(seed: int):
    gray = texture(seed, 80, 60).convert("L")
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    assert np.array_equal(np.asarray(decode(saved(deep, "PNG")))[..., 0], np.asarray(gray))


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        (np.array([0, 65535], "uint16"), (0, 255)),
        (np.array([0, 255], "uint16"), (0, 1)),
        (np.array([-128, 127], "int8"), (0, 255)),
        (np.array([-32768, 32767], "int16"), (0, 255)),
        (np.array([0, 32767], "int16"), (0, 255)),
        (np.array([0, 255], "int32"), (0, 255)),
        (np.array([0, 65535], "int32"), (0, 255)),
        (np.array([0, 2**32 - 1], "uint32"), (0, 255)),
        (np.array([-(2**31), 2**31 - 1], "int32"), (0, 255)),
        (np.array([0, 0.5, 1], "float32"), (0, 255)),
        (np.array([-1, 1], "float32"), (0, 255)),
        (np.array([0, 255], "float64"), (0, 255)),
        (np.array([0, 4.0], "float32"), (0, 255)),
        (np.array([0] + [0.5] * 500 + [1, 90.0], "float32"), (0, 255)),
        (np.array([0, np.nan, np.inf, 1], "float32"), (0, 255)),
        (np.array([], "float32"), ()),
        (np.array([np.nan, np.inf], "float32"), (0, 255)),
    ],
)
def test_the_range_of_samples(values: np.ndarray, levels: tuple[int, ...]):
    result = scaled(values)
    assert result.shape == values.shape
    if levels:
        assert (round(result[0]), round(result[-1])) == levels and result.max() <= 255


def test_twelve_bits_of_sixteen():
    assert scaled(np.array([0, 4095], "uint16"), bits=12).tolist() == [0, 255]


def test_a_bright_light_leaves_a_float_picture_as_it_is():
    values = np.concatenate([np.linspace(0, 1, 1000), [50.0]]).astype("float32")
    assert scaled(values)[500] == pytest.approx(127, abs=2) and scaled(values)[-1] == 255


def test_hidden_colours_do_not_show_and_a_black_logo_on_nothing_does():
    """Black or magenta below the transparency look the same: white."""
    pictures = [np.asarray(decode(saved(cut_out("RGBA", below), "PNG"))) for below in ((0, 0, 0), (255, 0, 200))]
    assert np.array_equal(*pictures)
    logo = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    ImageDraw.Draw(logo).rectangle((8, 8, 30, 30), fill=(0, 0, 0, 255))
    pixels = np.asarray(decode(saved(logo, "PNG")))
    assert pixels[0, 0].tolist() == [255] * 3 and pixels[20, 20].tolist() == [0] * 3


def test_half_transparent_pixels_are_mixed_with_white():
    half = Image.new("RGBA", SIZE, (200, 0, 0, 128))
    for form, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        assert np.abs(np.asarray(decode(saved(half, form, **options)))[0, 0].astype(int) - (227, 127, 127)).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_colour_key_is_of_its_own_depth(mode: str):
    """Key 1 of a bilevel PNG is white: all white pixels vanish, no other."""
    picture = scene().quantize(8) if mode == "P" else scene().convert(mode)
    white = {"1": 255, "L": 200, "P": 0, "RGB": (200, 200, 200)}[mode]
    data = saved(picture, "PNG")
    if mode == "1":
        data = with_chunks(data, chunk(b"tRNS", b"\0\0"))  # black
        shown = np.asarray(decode(data))
        assert (shown == 255).all() and not (np.asarray(picture.convert("L")) == 255).all()
        return
    data = saved(picture, "PNG", transparency=white)
    shown, plain = np.asarray(decode(data)), np.asarray(picture.convert("RGB"))
    keyed = (np.asarray(picture) == 0) if mode == "P" else (plain == 200).all(-1)
    assert keyed.any() and (shown[keyed] == 255).all() and np.array_equal(shown[~keyed], plain[~keyed])
