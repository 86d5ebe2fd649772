"""Modes, transparency, frames and depths of the other formats."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageCms, ImageOps

from benchmarks.odd import profile
from benchmarks.odd.scene import ORIENTATION, SIDES, Case, alpha, encoded, on_white, scene, tagged

# Why the browser is not followed.
_RANGE = "it takes the full range of alpha planes and sequences for the limited one: levels are off by up to 20"


def modes() -> Iterator[Case]:
    """Every mode that a format holds, as Pillow writes it."""
    picture = scene(2)
    rgba = picture.copy()
    rgba.putalpha(Image.fromarray(alpha()))
    la = picture.convert("L")
    la.putalpha(Image.fromarray(alpha()))
    indexed = picture.quantize(64)
    by_mode = {"1": picture.convert("1"), "L": picture.convert("L"), "P": indexed, "RGB": picture}
    held = {"WEBP": ("RGB", "L"), "GIF": ("1", "L", "P", "RGB"), "BMP": ("1", "L", "P", "RGB"),
            "JPEG": ("L", "RGB"), "AVIF": ("RGB", "L")}  # fmt: skip
    for form, names in held.items():
        for mode in names:
            yield Case(f"{form} mode", f"{mode}.{form.lower()}", encoded(by_mode[mode], form))
    for name, options in {
        "411": {"subsampling": "4:1:1"}, "420": {"subsampling": "4:2:0"}, "422": {"subsampling": "4:2:2"},
        "444": {"subsampling": 0}, "progressive": {"progressive": True}, "restarts": {"restart_marker_blocks": 2},
        "rgb": {"keep_rgb": True}, "q20": {"quality": 20},
    }.items():  # fmt: skip
        yield Case("JPEG kind", f"{name}.jpeg", encoded(picture, "JPEG", **({"quality": 90} | options)))
    yield Case("JPEG kind", "mpo.jpeg", encoded(picture, "MPO", save_all=True, append_images=[scene(9)]), "browser")
    clear = indexed.copy()
    clear.info["transparency"] = int(np.bincount(np.asarray(indexed).ravel()).argmax())
    for form, options in (
        ("WEBP", {"lossless": True, "exact": True}),
        ("WEBP", {"quality": 90}),
        ("AVIF", {"quality": 98, "subsampling": "4:4:4"}),
    ):
        for mode, image in (("RGBA", rgba), ("LA", la)):
            name, data = f"{mode}-{options.get('quality', 'lossless')}.{form.lower()}", encoded(image, form, **options)
            if form == "AVIF":
                shown = on_white(np.asarray(image.convert("RGB")), alpha())
                yield Case(f"{form} alpha", name, data, "source", shown, _RANGE)
            else:
                yield Case(f"{form} alpha", name, data)
    yield Case("GIF transparency", "index.gif", encoded(clear, "GIF"))
    yield Case("GIF transparency", "index-interlaced.gif", encoded(clear, "GIF", interlace=True))
    yield Case("GIF transparency", "rgba.gif", encoded(rgba, "GIF"))
    yield Case("PNG alpha", "pa.png", encoded(rgba.quantize(64), "PNG"))
    yield Case("PNG alpha", "p-index.png", encoded(clear, "PNG"))


def frames() -> Iterator[Case]:
    """Animations and pages: the first picture that is not blank counts."""
    blank = Image.new("RGB", SIDES, (30, 30, 30))
    one, two = scene(11), scene(12)
    for form, options in {
        "GIF": {"duration": 60_000},
        "WEBP": {"lossless": True},
        "PNG": {},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }.items():
        more = {"save_all": True, "duration": 60_000, **options}
        truth = one.quantize(256).convert("RGB") if form == "GIF" else one
        odd = ("source", one, _RANGE) if form == "AVIF" else ()
        yield Case("frames", f"sound.{form.lower()}", encoded(one, form, append_images=[two], **more), *odd)
        yield Case(
            "frames",
            f"blank-first.{form.lower()}",
            encoded(blank, form, append_images=[one, two], **more),
            "source",
            truth,
        )
        odd = ("source", blank, _RANGE) if form == "AVIF" else ()
        red = Image.new("RGB", SIDES, (200, 9, 9))
        yield Case("frames", f"all-blank.{form.lower()}", encoded(blank, form, append_images=[red], **more), *odd)
    yield Case("frames", "pages.tiff", encoded(one, "TIFF", save_all=True, append_images=[two]), "source", one)
    yield Case("frames", "blank-page.tiff", encoded(blank, "TIFF", save_all=True, append_images=[two]), "source", two)
    clear = Image.new("RGBA", SIDES, (0, 0, 0, 0))
    yield Case(
        "frames",
        "clear-first.webp",
        encoded(clear, "WEBP", lossless=True, save_all=True, append_images=[two.convert("RGBA")]),
        "source",
        two,
    )
    yield Case(
        "frames",
        "clear-first.png",
        encoded(clear, "PNG", save_all=True, append_images=[two.convert("RGBA")]),
        "source",
        two,
    )
    small = Image.new("P", (60, 40))
    small.putpalette([200, 30, 40] * 256)
    data = bytearray(encoded(small, "GIF"))
    data[6:10] = struct.pack("<HH", *SIDES)  # the screen is larger than its only frame
    yield Case("frames", "screen-larger.gif", bytes(data))


def bitmaps() -> Iterator[Case]:
    """BMP by hand: 16 bits, 32 bits with and without alpha, top down, run lengths."""
    rgb = np.asarray(scene(13)).astype(np.uint32)
    opacity = alpha().astype(np.uint32)
    five = ((rgb[..., 0] >> 3) << 10) | ((rgb[..., 1] >> 3) << 5) | (rgb[..., 2] >> 3)
    six = ((rgb[..., 0] >> 3) << 11) | ((rgb[..., 1] >> 2) << 5) | (rgb[..., 2] >> 3)
    full = (opacity << 24) | (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]
    yield Case("BMP depth", "555.bmp", _bmp(five.astype("<u2"), 16))
    yield Case("BMP depth", "565.bmp", _bmp(six.astype("<u2"), 16, (0xF800, 0x7E0, 0x1F, 0)))
    yield Case("BMP depth", "32.bmp", _bmp((full & 0xFFFFFF).astype("<u4"), 32))
    yield Case("BMP depth", "32-undefined.bmp", _bmp(full.astype("<u4"), 32))
    yield Case("BMP depth", "32-alpha.bmp", _bmp(full.astype("<u4"), 32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)))
    yield Case("BMP depth", "top-down.bmp", _bmp((full & 0xFFFFFF).astype("<u4"), 32, down=True))


def _bmp(values: np.ndarray, bits: int, masks: Sequence[int] = (), *, down: bool = False) -> bytes:
    height, width = values.shape
    body = (values if down else values[::-1]).tobytes()
    head = struct.pack(
        "<iiHHIIiiII", width, -height if down else height, 1, bits, 3 if masks else 0, len(body), 2835, 2835, 0, 0
    )
    if masks:
        head += struct.pack("<4I", *masks) + b"BGRs" + bytes(48)
    head = struct.pack("<I", len(head) + 4) + head
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body


def newer() -> Iterator[Case]:
    """HEIC and JPEG XL, which this browser does not read."""
    import pillow_heif
    import pillow_jxl  # noqa: F401 - registers itself

    pillow_heif.register_heif_opener()
    picture, icc = scene(14), profile.matrix(profile.DISPLAY_P3)
    rgba = picture.copy()
    rgba.putalpha(Image.fromarray(alpha()))
    shown = on_white(np.asarray(picture), alpha())
    converted = ImageCms.profileToProfile(
        picture, ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for form, options in {
        "HEIF": {"quality": -1, "chroma": 444, "matrix_coefficients": 0},
        "JXL": {"lossless": True},
    }.items():
        kind = "HEIC" if form == "HEIF" else "JPEG XL"
        end = "heic" if form == "HEIF" else "jxl"
        yield Case(kind, f"rgb.{end}", encoded(picture, form, **options), "source", picture)
        yield Case(
            kind,
            f"gray.{end}",
            encoded(picture.convert("L"), form, **options),
            "source",
            picture.convert("L").convert("RGB"),
        )
        yield Case(kind, f"rgba.{end}", encoded(rgba, form, **options), "source", shown)
        yield Case(
            kind,
            f"p3.{end}",
            encoded(picture, form, icc_profile=icc, **options),
            "source",
            converted if form == "HEIF" else picture,
        )
        truth = ImageOps.exif_transpose(tagged(picture, 6)) if form == "HEIF" else picture
        yield Case(kind, f"turned6.{end}", encoded(picture, form, exif=exif.tobytes(), **options), "source", truth)
    yield Case("JPEG XL", "lossy.jxl", encoded(picture, "JXL", quality=98), "source", picture)
    for value in (1, 6, 3):
        exif[ORIENTATION] = value
        with tempfile.NamedTemporaryFile(suffix=".jpg") as file:  # the encoder packs a JPEG that it can open by name
            picture.save(file.name, "JPEG", quality=95, exif=exif)
            packed = encoded(Image.open(file.name), "JXL", lossless_jpeg=True)
            upright = ImageOps.exif_transpose(Image.open(file.name)).convert("RGB")
        yield Case("JPEG XL", f"from-jpeg-turned{value}.jxl", packed, "source", upright)
