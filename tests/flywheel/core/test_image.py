"""What the decode shows is what a person sees: sizes, orientation, frames, refusals; scorers share it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from curation.shards.fit import fit
from flywheel.core.image import (
    BadImage,
    decode,
    decode_at_least,
    decode_fitted,
    decode_working,
    describe,
    exif_orientation,
    fitted,
    open_image,
    upright_size,
)
from flywheel.core.image import turned as at
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded, texture, turned
from tests.flywheel.core.pictures import (
    SIZE,
    chunk,
    exif,
    raw_profile,
    saved,
    scene,
    stored,
    tiff_exif,
    with_chunks,
    xmp,
)
from training.sampling import resized

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


# What a person sees --------------------------------------------------------------------------------------------------
HELD: dict[str, Callable[[int], bytes]] = {
    "JPEG": lambda o: saved(stored(o), "JPEG", quality=98, subsampling=0, exif=exif(o)),
    "JPEG by XMP": lambda o: saved(
        stored(o), "JPEG", quality=98, subsampling=0, xmp=f'<a tiff:Orientation="{o}"/>'.encode()
    ),
    "PNG": lambda o: with_chunks(saved(stored(o), "PNG"), chunk(b"eXIf", tiff_exif(o))),
    "PNG, late eXIf": lambda o: with_chunks(saved(stored(o), "PNG"), chunk(b"eXIf", tiff_exif(o)), late=True),
    "PNG, raw profile": lambda o: with_chunks(saved(stored(o), "PNG"), raw_profile(o)),
    "PNG, late raw profile": lambda o: with_chunks(saved(stored(o), "PNG"), raw_profile(o), late=True),
    "PNG, XMP": lambda o: with_chunks(saved(stored(o), "PNG"), xmp(o)),
    "WebP": lambda o: saved(stored(o), "WEBP", lossless=True, exif=exif(o)),
    "WebP by XMP": lambda o: saved(stored(o), "WEBP", lossless=True, xmp=f'<a tiff:Orientation="{o}"/>'),
    "TIFF": lambda o: saved(stored(o), "TIFF", exif=exif(o)),
    "TIFF by XMP": lambda o: saved(stored(o), "TIFF", tiffinfo={700: f'<a tiff:Orientation="{o}"/>'.encode()}),
    "AVIF": lambda o: saved(stored(o), "AVIF", quality=98, subsampling="4:4:4", exif=exif(o)),
    "HEIC": lambda o: heic(stored(o), exif(o)),
}


def heic(picture: Image.Image, tags: Image.Exif) -> bytes:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    return saved(picture, "HEIF", quality=98, chroma=444, exif=tags.tobytes())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", HELD)
def test_every_way_to_say_which_way_is_up(kind: str, orientation: int):
    data = HELD[kind](orientation)
    assert upright_size(open_image(data)) == SIZE == decode(data).size == decode_working(data).shape[1::-1]
    for pixels in (np.asarray(decode(data)), decode_working(data)):
        assert np.abs(pixels.astype(int) - np.asarray(scene())).mean() < 4
    assert describe(data).size == SIZE


def test_the_first_frame_that_is_not_blank_is_taken():
    blank = Image.new("RGB", SIZE, "black")
    data = saved(blank, "GIF", save_all=True, append_images=[blank, scene(), blank], duration=50)
    seen = describe(data)
    assert (seen.frames >= 2, seen.frame > 0) == (True, True)
    assert np.asarray(decode(data)).std() > 30
    pages = saved(scene(), "TIFF", save_all=True, append_images=[blank])
    assert (describe(pages).frames, describe(pages).frame) == (2, 0)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS files are not accepted"),
        (saved(scene(), "ICO"), "ICO files are not accepted"),
        (saved(scene(), "PPM"), "PPM files are not accepted"),
        (b"%PDF-1.7", "PDF files are not accepted"),
        (b"hello", "not an image"),
        (b"", "zero bytes"),
        *((saved(scene(), kind)[:60], "truncated or corrupt") for kind in ("PNG", "WEBP", "AVIF", "JPEG", "TIFF")),
    ],
)
def test_what_is_not_accepted_names_its_format(data: bytes, told: str):
    with pytest.raises(BadImage, match=told):
        decode(data)


def test_a_reference_of_another_aspect_is_seen_as_in_training():
    wide = Image.new("RGB", (192, 64), "white")
    ImageDraw.Draw(wide).ellipse((76, 12, 116, 52), fill="red")

    def disc(picture: np.ndarray) -> tuple[int, int]:
        rows, columns = np.where((picture[..., 0] > 150) & (picture[..., 1] < 120))
        return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1

    trained = disc(np.asarray(decode(fit(saved(wide, "PNG"), 64, 64))))
    assert disc(resized([np.asarray(wide)], (64, 64))[0].permute(1, 2, 0).numpy()) == trained == (41, 41)


@pytest.mark.parametrize("orientation", [2, 3, 6, 7])
def test_a_jpeg_packed_as_jpeg_xl_is_turned_by_its_exif(orientation: int, tmp_path: Path):
    pytest.importorskip("pillow_jxl")
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(stored(orientation), "JPEG", quality=98, subsampling=0, exif=exif(orientation)))
    packed = saved(Image.open(path), "JXL", lossless_jpeg=True)
    assert np.abs(np.asarray(decode(packed)).astype(int) - np.asarray(scene())).mean() < 4
    plain = saved(scene(), "JXL", lossless=True, exif=exif(orientation).tobytes())
    assert np.array_equal(np.asarray(decode(plain)), np.asarray(scene())), "EXIF does not turn JPEG XL"


def test_a_description_says_where_its_orientation_stands():
    png = saved(scene(), "PNG")
    places = {
        "exif": saved(scene(), "JPEG", exif=exif(6)),
        "raw profile": with_chunks(png, raw_profile(6)),
        "xmp": with_chunks(png, xmp(6), late=True),
        "tiff": saved(scene(), "TIFF", exif=exif(6)),
        "container": saved(scene(), "AVIF", exif=exif(6)),
        "none": png,
    }
    for place, data in places.items():
        seen = describe(data)
        assert (seen.orientation_from, seen.stored_size) == (place, SIZE)
        assert seen.size == (SIZE if place == "none" else SIZE[::-1]) == decode(data).size


def test_a_description_names_depth_alpha_profile_and_damage():
    clear = scene().convert("RGBA")
    seen = describe(saved(clear, "PNG", icc_profile=b"not a profile"))
    assert (seen.depth, seen.alpha, seen.profile, seen.damage) == (8, True, "", "")
    data = saved(scene().resize((300, 200)), "JPEG")
    cut = describe(data[: len(data) // 2] + b"\xff\xd9")
    assert cut.size == (300, 200) and "premature end" in cut.damage
    without_palette = saved(scene().quantize(8), "PNG").replace(b"PLTE", b"prvT")
    assert describe(without_palette).damage


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_blank_frames_the_first_is_shown(form: str):
    gray, red = Image.new("RGB", SIZE, (30, 30, 30)), Image.new("RGB", SIZE, (200, 9, 9))
    more = {"lossless": True} if form == "WEBP" else {}
    data = saved(gray, form, save_all=True, append_images=[red], **more)
    assert (np.asarray(decode(data)) == 30).all() and describe(data).frame == 0
    lively = saved(gray, form, save_all=True, append_images=[red, scene()], **more)
    assert (describe(lively).frames, describe(lively).frame) == (3, 2)
    assert np.abs(np.asarray(decode(lively)).astype(int) - np.asarray(scene())).mean() < 2


def test_a_gif_smaller_than_its_screen_stands_on_white():
    small = saved(Image.new("P", (30, 20), 1), "GIF")
    data = small[:6] + bytes((*SIZE[:1], 0, *SIZE[1:], 0)) + small[10:]
    pixels = np.asarray(decode(data))
    assert pixels.shape[1::-1] == SIZE and (pixels[30, 50] == 255).all()


def test_a_tiff_is_turned_once():
    """Pillow reports the upright size of a TIFF already."""
    data = encoded(texture(1, 64, 48), "TIFF", exif=exif(6))
    assert upright_size(open_image(data)) == (48, 64) == decode(data).size
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(texture(1, 64, 48), "PNG", exif=exif(6)))))
    assert np.array_equal(np.asarray(decode(data)), np.asarray(upright))
    assert exif_orientation(open_image(data)) == 6


@pytest.mark.parametrize("size", [(1301, 903), (903, 1301), (3001, 701), (2005, 1603)])
@pytest.mark.parametrize("orientation, turn", [(1, 0), (3, 90), (5, 0), (6, 180), (8, 270)])
def test_a_reduced_decode_fits_as_a_full_one(size: tuple[int, int], orientation: int, turn: int) -> None:
    """Every edge where it was, and less lost than by JPEG; a small picture is not reduced."""
    data = turned(texture(3, *size), orientation)
    whole = fitted(at(decode(data), turn), 256, 192)
    assert _decibels(whole, decode_fitted(data, 256, 192, turn)) > 45
    small = turned(texture(3, 300, 200), orientation)
    assert _decibels(fitted(at(decode(small), turn), 256, 192), decode_fitted(small, 256, 192, turn)) > 60


def _decibels(a: Image.Image, b: Image.Image) -> float:
    """Peak signal-to-noise ratio of two pictures of one size."""
    return float(20 * np.log10(255) - 10 * np.log10(max(1e-9, np.mean((np.asarray(a, float) - np.asarray(b)) ** 2))))
