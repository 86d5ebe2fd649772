"""What the decode shows is what a person sees: orientation, depth, transparency, colour, frames and damage."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw, PngImagePlugin

from curation.shards.writer import fit
from flywheel.core.image import BadImage, decode, decode_working, describe, open_image, upright_size
from training.sampling import resized

SIZE = (64, 40)


def scene() -> Image.Image:
    """Four corners of four colours: no turn of it looks like another."""
    picture = Image.new("RGB", SIZE, (200, 200, 200))
    draw = ImageDraw.Draw(picture)
    for box, color in (((0, 0, 20, 12), "red"), ((44, 0, 63, 12), "lime"), ((0, 28, 20, 39), "blue")):
        draw.rectangle(box, fill=color)
    return picture


def saved(picture: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(png: bytes, *chunks: bytes, late: bool = False) -> bytes:
    """Chunks before or behind a PNG's pixels."""
    place = png.rindex(b"IEND") - 4 if late else png.index(b"IDAT") - 4
    return png[:place] + b"".join(chunks) + png[place:]


def raw_profile(orientation: int) -> bytes:
    body = b"Exif\0\0" + exif(orientation).tobytes().removeprefix(b"Exif\0\0")
    text = b"\nexif\n%8d\n" % len(body) + body.hex().encode() + b"\n"
    return chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))


def xmp(orientation: int) -> bytes:
    text = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="{orientation}"/></x:xmpmeta>'
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text.encode())


def stored(orientation: int) -> Image.Image:
    """The scene as a camera that was held so stores it."""
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    return scene().transpose(turns[undo[orientation]]) if orientation > 1 else scene()


def tiff_exif(orientation: int) -> bytes:
    return exif(orientation).tobytes().removeprefix(b"Exif\0\0")


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
    "TIFF": lambda o: saved(stored(o), "TIFF", exif=exif(o)),
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


def test_the_first_frame_that_is_not_blank_is_taken():
    blank = Image.new("RGB", SIZE, "black")
    data = saved(blank, "GIF", save_all=True, append_images=[blank, scene(), blank], duration=50)
    seen = describe(data)
    assert (seen.frames >= 2, seen.frame > 0) == (True, True)
    assert np.asarray(decode(data)).std() > 30
    pages = saved(scene(), "TIFF", save_all=True, append_images=[blank])
    assert (describe(pages).frames, describe(pages).frame) == (2, 0)


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


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS files are not accepted"),
        (saved(scene(), "ICO"), "ICO files are not accepted"),
        (saved(scene(), "PPM"), "PPM files are not accepted"),
        (b"%PDF-1.7", "PDF files are not accepted"),
        (b"hello", "not an image"),
        (b"", "zero bytes"),
        (saved(scene(), "PNG")[:60], "truncated|cannot be read"),
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
