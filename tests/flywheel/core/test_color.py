"""Colours are those of the profile, or of the numbers that a PNG gives instead."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from curation.shards.fit import fit
from flywheel.core.color import matrix_profile, png_profile, profile_name
from flywheel.core.image import decode, decode_working, describe
from tests.curation.corpus import texture
from tests.flywheel.core.pictures import SIZE, chunk, saved, scene, with_chunks

SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3 = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
ADOBE = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


def swapped_profile() -> bytes:
    """sRGB with red and blue exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"tmp_").replace(b"bXYZ", b"rXYZ").replace(b"tmp_", b"bXYZ")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_colours_are_those_of_the_profile(form: str):
    red = Image.new("RGB", SIZE, (220, 30, 30))
    data = saved(red, form, icc_profile=swapped_profile(), **({"lossless": True} if form == "WEBP" else {}))
    for pixels in (np.asarray(decode(data)), decode_working(data)):
        assert np.abs(pixels.reshape(-1, 3).mean(0) - (30, 30, 220)).max() < 4
    plain = saved(red, form, icc_profile=b"broken", **({"lossless": True} if form == "WEBP" else {}))
    assert np.abs(np.asarray(decode(plain)).reshape(-1, 3).mean(0) - (220, 30, 30)).max() < 4
    assert "icc_profile" not in Image.open(io.BytesIO(fit(data, 32, 32))).info


def converted(picture: Image.Image, profile: bytes) -> np.ndarray:
    """By littleCMS, straight."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    result = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert result is not None
    return np.asarray(result).astype(int)


@pytest.mark.parametrize("primaries", [P3, ADOBE])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_wide_gamuts_are_converted_at_full_and_reduced_scale(form: str, primaries: tuple[float, ...]):
    profile, picture = matrix_profile(primaries, (2.2,)), texture(3, 900, 700)
    options = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 97, "subsampling": 0},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    data = saved(picture, form, icc_profile=profile, **options.get(form, {}))
    expected = converted(picture, profile)
    assert np.abs(np.asarray(decode(data)) - expected).mean() < 1.5
    assert np.abs(decode_working(data).mean((0, 1)) - expected.mean((0, 1))).max() < 2
    assert describe(data).profile


def test_the_numbers_that_primaries_give_are_those_of_srgb():
    """A profile made of sRGB's own primaries and curve changes nothing."""
    picture = texture(4, 60, 40)
    curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    assert np.abs(converted(picture, matrix_profile(SRGB, curve)) - np.asarray(picture)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "LA"])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_gray_profiles_are_converted(form: str, mode: str):
    if (form, mode) == ("JPEG", "LA"):
        pytest.skip("JPEG has no alpha")
    gray = texture(5, 60, 40).convert("L").convert(mode)
    profile = matrix_profile(SRGB, (1.0,), gray=True)
    shown = np.asarray(decode(saved(gray, form, icc_profile=profile, **({"quality": 98} if form == "JPEG" else {}))))
    assert (
        np.abs(shown - converted(gray.convert("L"), profile)).mean() < 1
        and shown.mean() > np.asarray(gray.convert("L")).mean() + 20
    )


def test_the_profile_is_settled_before_transparency():
    clear = Image.new("RGBA", SIZE, (220, 30, 30, 128))
    pixel = np.asarray(decode(saved(clear, "PNG", icc_profile=swapped_profile())))[0, 0].astype(int)
    assert np.abs(pixel - (142, 142, 237)).max() <= 2


def numbers(kind: str) -> bytes:
    gamma, places = chunk(b"gAMA", struct.pack(">I", 100_000)), tuple(round(v * 100_000) for v in P3)
    wide, srgb = chunk(b"cHRM", struct.pack(">8I", *places)), chunk(b"sRGB", b"\0")
    icc = chunk(b"iCCP", b"p\0\0" + zlib.compress(matrix_profile(ADOBE, (2.2,))))
    chunks = {
        "gAMA": [gamma], "gAMA and cHRM": [gamma, wide], "cHRM alone": [wide], "sRGB over gAMA": [srgb, gamma],
        "iCCP over gAMA": [icc, gamma], "cICP over iCCP": [chunk(b"cICP", bytes((12, 13, 0, 1))), icc],
        "cICP of sRGB": [chunk(b"cICP", bytes((1, 13, 0, 1))), gamma], "broken gAMA": [chunk(b"gAMA", b"\0")],
        "usual gAMA": [chunk(b"gAMA", struct.pack(">I", 45455))],
        "broken iCCP, gAMA": [chunk(b"iCCP", b"p\0\0x"), gamma],
    }  # fmt: skip
    return with_chunks(saved(texture(6, 60, 40), "PNG"), *chunks[kind])


CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
MEANING: dict[str, bytes | None] = {
    "gAMA": matrix_profile(SRGB, (1.0,)),
    "gAMA and cHRM": matrix_profile(P3, (1.0,)),
    "cHRM alone": None,
    "sRGB over gAMA": None,
    "iCCP over gAMA": matrix_profile(ADOBE, (2.2,)),
    "cICP over iCCP": matrix_profile(P3, CURVE),
    "cICP of sRGB": None,
    "broken gAMA": None,
    "usual gAMA": None,
    "broken iCCP, gAMA": matrix_profile(SRGB, (1.0,)),
}


@pytest.mark.parametrize("kind", MEANING)
def test_colour_chunks_of_a_png(kind: str):
    picture, profile = texture(6, 60, 40), MEANING[kind]
    expected = converted(picture, profile) if profile else np.asarray(picture)
    assert np.abs(np.asarray(decode(numbers(kind))).astype(int) - expected).max() <= 1
    assert (png_profile(numbers(kind)) is None) == (profile is None)


def test_a_profile_that_is_of_another_space_or_damaged_is_ignored():
    for profile in (matrix_profile(SRGB, (1.0,), gray=True), matrix_profile(P3, (2.2,))[:150], b""):
        data = saved(scene(), "PNG", icc_profile=profile)
        assert np.array_equal(np.asarray(decode(data)), np.asarray(scene()))
    assert profile_name(None) == "" and profile_name(b"x") == "damaged"


def test_shards_carry_no_profile_and_no_other_info():
    for form in ("PNG", "JPEG"):
        data = saved(scene(), form, icc_profile=swapped_profile(), dpi=(72, 72))
        stored = Image.open(io.BytesIO(fit(data, 32, 32)))
        assert not {"icc_profile", "transparency", "gamma", "exif"} & stored.info.keys()
