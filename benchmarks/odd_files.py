"""Pictures of every kind that the decode must read: format × mode × depth × alpha × profile × orientation × damage.

Each is made from one small scene, so that its true pixels are known where no independent reader exists.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tifffile
from PIL import Image, ImageCms, ImageDraw, ImageOps

from benchmarks import odd_profiles

SIDES = (120, 84)  # pixels of the scene, width and height
ORIENTATION = 0x0112
_PNG_START = b"\x89PNG\r\n\x1a\n"
_GRAY, _RGB, _PALETTE, _GRAY_ALPHA, _RGBA = 0, 2, 3, 4, 6  # colour types of PNG


@dataclass(frozen=True)
class Case:
    """One file. judge: browser | source (`truth` is known) | tifffile | refused (it must not be read)."""

    kind: str
    name: str
    data: bytes
    judge: str = "browser"
    truth: Image.Image | None = None


def cases() -> list[Case]:
    """Every file, in a fixed order."""
    parts = (depths, modes, profiles, color_chunks, gray_profiles, cmyk, orientations, elsewhere, tiffs, frames, bitmaps,
             newer, damaged, odd_metadata)  # fmt: skip
    return [case for part in parts for case in part()]


def scene(seed: int = 0) -> Image.Image:
    """A picture without symmetry: soft gradients, saturated shapes, thin lines, grain."""
    width, height = SIDES
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [40 + 150 * x / width, 60 + 120 * y / height, 200 - 140 * (x + y) / (width + height)]
    picture = Image.fromarray(np.clip(np.stack(planes, -1) + rng.normal(0, 2, (height, width, 3)), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for color in ((230, 20, 30), (20, 200, 40), (30, 40, 230), (250, 220, 20), (10, 10, 10), (250, 250, 250)):
        left, top = int(rng.integers(4, width - 40)), int(rng.integers(4, height - 30))
        draw.rectangle((left, top, left + 32, top + 18), fill=color)
    draw.polygon([(2, 2), (34, 2), (2, 30)], fill=(200, 40, 160))
    return picture


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    """Bytes of a picture."""
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def alpha() -> np.ndarray:
    """Soft transparency, uint8 [H, W]: an oval, its edge a ramp."""
    width, height = SIDES
    y, x = np.mgrid[:height, :width]
    far = np.hypot((x - width / 2) / (width / 2), (y - height / 2) / (height / 2))
    return np.clip((1.05 - far) * 900, 0, 255).astype(np.uint8)


def on_white(rgb: np.ndarray, opacity: np.ndarray) -> Image.Image:
    """RGB [H, W, 3] over white."""
    share = opacity[..., None] / 255
    return Image.fromarray(np.round(rgb * share + 255 * (1 - share)).astype(np.uint8))


# PNG by hand: Pillow writes only a part of what others do -------------------------------------------------------------
def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: np.ndarray, depth: int, color: int, before: Sequence[bytes] = (), after: Sequence[bytes] = ()) -> bytes:
    """PNG of whole samples [H, W] or [H, W, C] at a depth; further chunks before and after the pixels."""
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    if depth == 16:
        packed = rows.astype(">u2").view(np.uint8).reshape(height, -1)
    elif depth == 8:
        packed = rows.astype(np.uint8)
    else:
        bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., -depth:].reshape(height, -1)
        packed = np.packbits(bits, axis=-1)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), packed], axis=1).tobytes()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"".join([_PNG_START, head, *before, chunk(b"IDAT", zlib.compress(lines)), *after, chunk(b"IEND", b"")])


def beside_pixels(data: bytes, piece: bytes, *, late: bool = False) -> bytes:
    """The PNG with one more chunk, after its header or before its end."""
    place = len(data) - 12 if late else 33
    return data[:place] + piece + data[place:]


def depths() -> Iterator[Case]:
    """PNG: every colour type at every depth, with and without transparency."""
    rgb = np.asarray(scene(1)).astype(np.uint32)
    gray = np.asarray(scene(1).convert("L")).astype(np.uint32)
    for depth in (1, 2, 4, 8, 16):
        top = 2**depth - 1
        samples = np.round(gray * top / 255).astype(np.uint32)
        key = int(np.bincount(samples.ravel()).argmax())
        yield Case("PNG gray depth", f"gray{depth}.png", png(samples, depth, _GRAY))
        yield Case("PNG tRNS", f"gray{depth}-key.png", png(samples, depth, _GRAY, [chunk(b"tRNS", struct.pack(">H", key))]))
    for depth in (1, 2, 4, 8):
        indexed = scene(1).quantize(2**depth)
        colors = chunk(b"PLTE", bytes(indexed.getpalette()[: 3 * 2**depth]))
        clear = chunk(b"tRNS", bytes(60 * i % 256 for i in range(2**depth)))
        yield Case("PNG palette", f"palette{depth}.png", png(np.asarray(indexed), depth, _PALETTE, [colors]))
        yield Case("PNG tRNS", f"palette{depth}-alpha.png", png(np.asarray(indexed), depth, _PALETTE, [colors, clear]))
    for depth, scale in ((8, 1), (16, 257)):
        deep = rgb * scale + (np.arange(rgb.size).reshape(rgb.shape) % 100 if depth == 16 else 0)
        deep = np.minimum(deep, 2**depth - 1)
        key = deep[40, 60]
        deep[10:30, 50:90] = key
        near = deep.copy()
        near[50:60, 20:60] = np.where(key > 0, key - 1, key + 1)  # almost the key: opaque
        clear = chunk(b"tRNS", struct.pack(">3H", *key))
        opacity = alpha().astype(np.uint32)[..., None] * scale
        yield Case("PNG RGB depth", f"rgb{depth}.png", png(deep, depth, _RGB))
        yield Case("PNG tRNS", f"rgb{depth}-key.png", png(near, depth, _RGB, [clear]))
        yield Case("PNG alpha", f"rgba{depth}.png", png(np.dstack([deep, opacity]), depth, _RGBA))
        yield Case("PNG alpha", f"la{depth}.png", png(np.dstack([gray * scale, opacity]), depth, _GRAY_ALPHA))


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
    for form, options in (("WEBP", {"lossless": True, "exact": True}), ("WEBP", {"quality": 90}), ("AVIF", {"quality": 95})):
        for mode, image in (("RGBA", rgba), ("LA", la)):
            yield Case(f"{form} alpha", f"{mode}-{options.get('quality', 'lossless')}.{form.lower()}", encoded(image, form, **options))
    yield Case("GIF transparency", "index.gif", encoded(clear, "GIF"))
    yield Case("GIF transparency", "index-interlaced.gif", encoded(clear, "GIF", interlace=True))
    yield Case("GIF transparency", "rgba.gif", encoded(rgba, "GIF"))
    yield Case("PNG alpha", "pa.png", encoded(rgba.quantize(64), "PNG"))
    yield Case("PNG alpha", "p-index.png", encoded(clear, "PNG"))


def profiles() -> Iterator[Case]:
    """RGB profiles in every container, with alpha and palettes too."""
    picture = scene(3)
    rgba = picture.copy()
    rgba.putalpha(Image.fromarray(alpha()))
    containers = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
    for name, icc in odd_profiles.rgb_profiles().items():
        for form, options in containers.items():
            yield Case(f"{form} profile", f"{name}.{form.lower()}", encoded(picture, form, icc_profile=icc, **options))
        yield Case("TIFF profile", f"{name}.tiff", encoded(picture, "TIFF", icc_profile=icc), "tifffile")
        yield Case("PNG alpha and profile", f"{name}-alpha.png", encoded(rgba, "PNG", icc_profile=icc))
    icc = odd_profiles.matrix(odd_profiles.DISPLAY_P3)
    yield Case("PNG palette and profile", "p3-palette.png", encoded(picture.quantize(64), "PNG", icc_profile=icc))
    yield Case("PNG palette and profile", "p3-palette-alpha.png", encoded(rgba.quantize(64), "PNG", icc_profile=icc))
    yield Case("WEBP alpha and profile", "p3-alpha.webp", encoded(rgba, "WEBP", icc_profile=icc, lossless=True))
    deep = np.asarray(picture).astype(np.uint32) * 257
    packed = b"p\0\0" + zlib.compress(icc)
    yield Case("PNG deep and profile", "p3-16.png", png(deep, 16, _RGB, [chunk(b"iCCP", packed)]))


def color_chunks() -> Iterator[Case]:
    """PNG colour without a profile: gAMA, cHRM, sRGB, cICP."""
    gamma = chunk(b"gAMA", struct.pack(">I", 55556))  # 1 / 1.8
    plain = chunk(b"gAMA", struct.pack(">I", 45455))
    linear = chunk(b"gAMA", struct.pack(">I", 100000))
    white = (31270, 32900)
    p3 = chunk(b"cHRM", struct.pack(">8I", *white, 68000, 32000, 26500, 69000, 15000, 6000))
    srgb = chunk(b"cHRM", struct.pack(">8I", *white, 64000, 33000, 30000, 60000, 15000, 6000))
    tagged = chunk(b"sRGB", b"\0")
    icc = chunk(b"iCCP", b"p\0\0" + zlib.compress(odd_profiles.matrix(odd_profiles.ADOBE)))
    sets = {
        "gamma": [gamma], "gamma-linear": [linear], "gamma-2.2": [plain], "primaries": [p3],
        "gamma-and-primaries": [gamma, p3], "linear-and-srgb-primaries": [linear, srgb], "plain-p3": [plain, p3],
        "srgb": [tagged], "srgb-over-gamma": [tagged, gamma, p3], "icc-over-gamma": [icc, gamma, p3],
        "cicp-p3": [chunk(b"cICP", bytes((12, 13, 0, 1)))], "cicp-srgb": [chunk(b"cICP", bytes((1, 13, 0, 1)))],
        "cicp-over-icc": [chunk(b"cICP", bytes((12, 13, 0, 1))), icc],
        "cicp-2020": [chunk(b"cICP", bytes((9, 1, 0, 1)))],
    }  # fmt: skip
    rgb = np.asarray(scene(4))
    for name, pieces in sets.items():
        yield Case("PNG colour chunks", f"{name}.png", png(rgb, 8, _RGB, pieces))
    gray = np.asarray(scene(4).convert("L"))
    for name in ("gamma", "linear-and-srgb-primaries"):
        yield Case("PNG colour chunks", f"gray-{name}.png", png(gray, 8, _GRAY, sets[name]))


def gray_profiles() -> Iterator[Case]:
    """Gray pictures with gray profiles."""
    picture = scene(5).convert("L")
    la = picture.copy()
    la.putalpha(Image.fromarray(alpha()))
    for gamma in (1.0, 1.8, 2.2):
        icc = odd_profiles.gray(gamma)
        yield Case("gray and profile", f"gray-{gamma}.jpeg", encoded(picture, "JPEG", quality=95, icc_profile=icc))
        yield Case("gray and profile", f"gray-{gamma}.png", encoded(picture, "PNG", icc_profile=icc))
        yield Case("gray and profile", f"gray-{gamma}-alpha.png", encoded(la, "PNG", icc_profile=icc))
        deep = np.asarray(picture).astype(np.uint32) * 257
        piece = chunk(b"iCCP", b"g\0\0" + zlib.compress(icc))
        yield Case("gray and profile", f"gray-{gamma}-16.png", png(deep, 16, _GRAY, [piece]))
        yield Case("gray and profile", f"gray-{gamma}.tiff", encoded(picture, "TIFF", icc_profile=icc), "tifffile")


def cmyk() -> Iterator[Case]:
    """Four inks, with and without a profile."""
    picture = scene(6).convert("CMYK")
    icc = odd_profiles.table(b"CMYK", odd_profiles.inks)
    yield Case("CMYK", "cmyk.jpeg", encoded(picture, "JPEG", quality=95))
    yield Case("CMYK", "cmyk-press.jpeg", encoded(picture, "JPEG", quality=95, icc_profile=icc))
    yield Case("CMYK", "cmyk-rgb-profile.jpeg", encoded(picture, "JPEG", quality=95, icc_profile=odd_profiles.matrix(odd_profiles.ADOBE)))
    yield Case("CMYK", "cmyk.tiff", encoded(picture, "TIFF"), "source", picture.convert("RGB"))
    yield Case("CMYK", "cmyk-press.tiff", encoded(picture, "TIFF", icc_profile=icc), "tifffile")


def orientations() -> Iterator[Case]:
    """Orientation 1 to 8 in the EXIF of each container."""
    picture = scene(7)
    for value in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = value
        upright = ImageOps.exif_transpose(_tagged(picture, value))
        body = exif.tobytes().removeprefix(b"Exif\0\0")
        plain = encoded(picture, "PNG")
        yield Case("JPEG orientation", f"turned{value}.jpeg", encoded(picture, "JPEG", quality=95, exif=exif))
        yield Case("PNG orientation", f"turned{value}.png", beside_pixels(plain, chunk(b"eXIf", body)))
        yield Case("PNG late orientation", f"late{value}.png", beside_pixels(plain, chunk(b"eXIf", body), late=True), "source", upright)
        yield Case("WEBP orientation", f"turned{value}.webp", encoded(picture, "WEBP", lossless=True, exif=exif))
        yield Case("AVIF orientation", f"turned{value}.avif", encoded(picture, "AVIF", quality=95, exif=exif))
        yield Case("TIFF orientation", f"turned{value}.tiff", encoded(picture, "TIFF", exif=exif), "tifffile")


def elsewhere() -> Iterator[Case]:
    """Orientation in raw profiles and in XMP. Browsers ignore both; viewers and editors do not."""
    picture = scene(8)
    plain = encoded(picture, "PNG")
    for value in (2, 3, 6, 7):
        exif = Image.Exif()
        exif[ORIENTATION] = value
        upright = ImageOps.exif_transpose(_tagged(picture, value))
        raw = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
        lines = "\n".join(raw.hex()[i : i + 72] for i in range(0, 2 * len(raw), 72))
        text = f"\nexif\n{len(raw):8d}\n{lines}\n".encode()
        xmp = (
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{value}"/></rdf:RDF></x:xmpmeta>'
        ).encode()
        kinds = {
            "zTXt": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
            "tEXt": chunk(b"tEXt", b"Raw profile type exif\0" + text),
            "APP1": chunk(b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(text.replace(b"exif", b"APP1"))),
            "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        }
        for name, piece in kinds.items():
            for late in (False, True):
                yield Case("PNG orientation elsewhere", f"{name}{value}{'-late' * late}.png", beside_pixels(plain, piece, late=late), "source", upright)
        yield Case("WEBP orientation elsewhere", f"XMP{value}.webp", encoded(picture, "WEBP", lossless=True, xmp=xmp), "source", upright)
        yield Case("JPEG orientation elsewhere", f"XMP{value}.jpeg", encoded(picture, "JPEG", quality=98, subsampling=0, xmp=xmp), "source", upright)


def _tagged(picture: Image.Image, value: int) -> Image.Image:
    copy = picture.copy()
    copy.getexif()[ORIENTATION] = value
    return copy


def tiffs() -> Iterator[Case]:
    """TIFF: whole, signed and float samples of every width, both photometric senses, alpha, planes, tiles, Lab, YCbCr."""
    rgb = np.asarray(scene(10))
    gray = np.asarray(scene(10).convert("L"))
    unit = gray / 255
    kinds = {
        "u8": gray, "u16": gray.astype(np.uint16) * 257, "u32": gray.astype(np.uint32) * 16843009,
        "s8": (gray.astype(np.int16) - 128).astype(np.int8), "s16": (gray.astype(np.int32) * 257 - 32768).astype(np.int16),
        "s32": (gray.astype(np.int64) * 16843009 - 2**31).astype(np.int32), "f32": unit.astype(np.float32),
        "f16": unit.astype(np.float16), "f64": unit, "u64": gray.astype(np.uint64),
    }  # fmt: skip
    for name, samples in kinds.items():
        for sense in ("minisblack", "miniswhite"):
            for order in "<>":
                if order == ">" and samples.itemsize == 1:
                    continue
                yield Case("TIFF samples", f"{name}-{sense}-{'little' if order == '<' else 'big'}.tiff", _tiff(samples, photometric=sense, byteorder=order), "tifffile")
    wide = {"u16": rgb.astype(np.uint16) * 257, "f32": (rgb / 255).astype(np.float32), "u8": rgb, "s16": (rgb.astype(np.int32) * 257 - 32768).astype(np.int16), "u32": rgb.astype(np.uint32) * 16843009}
    opacity = alpha()
    for name, samples in wide.items():
        yield Case("TIFF RGB", f"rgb-{name}.tiff", _tiff(samples, photometric="rgb"), "tifffile")
    for name, samples in {"u8": np.dstack([rgb, opacity]), "u16": np.dstack([rgb, opacity]).astype(np.uint16) * 257}.items():
        for sense in ("unassalpha", "assocalpha"):
            held = samples.copy()
            if sense == "assocalpha":
                held[..., :3] = np.round(samples[..., :3] * (samples[..., 3:] / np.iinfo(samples.dtype).max))
            yield Case("TIFF alpha", f"rgba-{name}-{sense}.tiff", _tiff(held, photometric="rgb", extrasamples=[sense]), "tifffile")
    yield Case("TIFF alpha", "la.tiff", _tiff(np.dstack([gray, opacity]), photometric="minisblack", extrasamples=["unassalpha"], planarconfig="contig"), "tifffile")
    yield Case("TIFF alpha", "unspecified-extra.tiff", _tiff(np.dstack([rgb, opacity]), photometric="rgb", extrasamples=["unspecified"]), "tifffile")
    yield Case("TIFF layout", "planar.tiff", _tiff(np.moveaxis(rgb, -1, 0), photometric="rgb", planarconfig="separate"), "tifffile")
    yield Case("TIFF layout", "planar-u16.tiff", _tiff(np.moveaxis(rgb, -1, 0).astype(np.uint16) * 257, photometric="rgb", planarconfig="separate"), "tifffile")
    yield Case("TIFF layout", "tiles.tiff", _tiff(rgb, photometric="rgb", tile=(32, 32), compression="zlib"), "tifffile")
    yield Case("TIFF layout", "big.tiff", _tiff(rgb, photometric="rgb", bigtiff=True), "tifffile")
    yield Case("TIFF layout", "predictor-u16.tiff", _tiff(gray.astype(np.uint16) * 257, compression="zlib", predictor=True), "tifffile")
    for name in ("tiff_lzw", "packbits", "tiff_deflate", "tiff_adobe_deflate"):
        yield Case("TIFF layout", f"{name}.tiff", encoded(scene(10), "TIFF", compression=name), "source", scene(10))
    bilevel = scene(10).convert("1")
    for name in ("group3", "group4", None):
        yield Case("TIFF mode", f"1-{name}.tiff", encoded(bilevel, "TIFF", compression=name), "source", bilevel.convert("RGB"))
    indexed = scene(10).quantize(64)
    yield Case("TIFF mode", "P.tiff", encoded(indexed, "TIFF"), "source", indexed.convert("RGB"))
    yield Case("TIFF mode", "jpeg.tiff", encoded(scene(10), "TIFF", compression="jpeg", quality=98), "source", scene(10))
    yield Case("TIFF mode", "YCbCr.tiff", encoded(scene(10).convert("YCbCr"), "TIFF"), "source", scene(10))
    lab = ImageCms.profileToProfile(scene(10), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    yield Case("TIFF mode", "LAB.tiff", encoded(lab, "TIFF"), "source", scene(10))
    yield from (
        Case("TIFF mode", f"bits{bits}.tiff", _packed_tiff(gray, bits), "source", Image.fromarray(np.round(np.round(unit * (2**bits - 1)) * 255 / (2**bits - 1)).astype(np.uint8)).convert("RGB"))
        for bits in (1, 2, 4, 12)
    )


def _tiff(samples: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    order = str(options.pop("byteorder", "<"))
    with tifffile.TiffWriter(out, bigtiff=bool(options.pop("bigtiff", False)), byteorder=order) as writer:
        writer.write(samples.astype(samples.dtype.newbyteorder(order)), metadata=None, **options)
    return out.getvalue()


def _packed_tiff(gray: np.ndarray, bits: int) -> bytes:
    """Gray TIFF of 1 to 12 bits a sample, written by hand."""
    height, width = gray.shape
    samples = np.round(gray / 255 * (2**bits - 1)).astype(np.uint16)
    spread = np.unpackbits(samples.astype(">u2").view(np.uint8).reshape(height, width, 2), axis=-1)[..., -bits:]
    body = np.packbits(spread.reshape(height, -1), axis=-1).tobytes()
    fields = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(body)}
    table = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in fields.items())
    return b"II*\0" + struct.pack("<I", 8 + len(body) + len(body) % 2) + body + bytes(len(body) % 2) + struct.pack("<H", len(fields)) + table + bytes(4)


def frames() -> Iterator[Case]:
    """Animations and pages: the first picture that is not blank counts."""
    blank = Image.new("RGB", SIDES, (30, 30, 30))
    one, two = scene(11), scene(12)
    for form, options in {"GIF": {"duration": 60_000}, "WEBP": {"lossless": True}, "PNG": {}, "AVIF": {"quality": 95}}.items():
        more = {"save_all": True, "duration": 60_000, **options}
        yield Case("frames", f"sound.{form.lower()}", encoded(one, form, append_images=[two], **more))
        truth = one.quantize(256).convert("RGB") if form == "GIF" else one
        yield Case("frames", f"blank-first.{form.lower()}", encoded(blank, form, append_images=[one, two], **more), "source", truth)
        yield Case("frames", f"all-blank.{form.lower()}", encoded(blank, form, append_images=[Image.new("RGB", SIDES, (200, 9, 9))], **more))
    yield Case("frames", "pages.tiff", encoded(one, "TIFF", save_all=True, append_images=[two]), "source", one)
    yield Case("frames", "blank-page.tiff", encoded(blank, "TIFF", save_all=True, append_images=[two]), "source", two)
    clear = Image.new("RGBA", SIDES, (0, 0, 0, 0))
    yield Case("frames", "clear-first.webp", encoded(clear, "WEBP", lossless=True, save_all=True, append_images=[two.convert("RGBA")]), "source", two)
    yield Case("frames", "clear-first.png", encoded(clear, "PNG", save_all=True, append_images=[two.convert("RGBA")]), "source", two)
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
    head = struct.pack("<iiHHIIiiII", width, -height if down else height, 1, bits, 3 if masks else 0, len(body), 2835, 2835, 0, 0)
    if masks:
        head += struct.pack("<4I", *masks) + b"BGRs" + bytes(48)
    head = struct.pack("<I", len(head) + 4) + head
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body


def newer() -> Iterator[Case]:
    """HEIC and JPEG XL, which this browser does not read."""
    import pillow_heif
    import pillow_jxl  # noqa: F401 - registers itself

    pillow_heif.register_heif_opener()
    picture, icc = scene(14), odd_profiles.matrix(odd_profiles.DISPLAY_P3)
    rgba = picture.copy()
    rgba.putalpha(Image.fromarray(alpha()))
    shown = on_white(np.asarray(picture), alpha())
    converted = ImageCms.profileToProfile(picture, ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB"), outputMode="RGB")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for form, options in {"HEIF": {"quality": -1, "chroma": 444, "matrix_coefficients": 0}, "JXL": {"lossless": True}}.items():
        kind = "HEIC" if form == "HEIF" else "JPEG XL"
        end = "heic" if form == "HEIF" else "jxl"
        yield Case(kind, f"rgb.{end}", encoded(picture, form, **options), "source", picture)
        yield Case(kind, f"gray.{end}", encoded(picture.convert("L"), form, **options), "source", picture.convert("L").convert("RGB"))
        yield Case(kind, f"rgba.{end}", encoded(rgba, form, **options), "source", shown)
        yield Case(kind, f"p3.{end}", encoded(picture, form, icc_profile=icc, **options), "source", converted if form == "HEIF" else picture)
        truth = ImageOps.exif_transpose(_tagged(picture, 6)) if form == "HEIF" else picture
        yield Case(kind, f"turned6.{end}", encoded(picture, form, exif=exif.tobytes(), **options), "source", truth)
    yield Case("JPEG XL", "lossy.jxl", encoded(picture, "JXL", quality=98), "source", picture)
    jpeg = encoded(picture, "JPEG", quality=98, subsampling=0)
    yield Case("JPEG XL", "from-jpeg.jxl", encoded(Image.open(io.BytesIO(jpeg)), "JXL", lossless_jpeg=True), "source", Image.open(io.BytesIO(jpeg)).convert("RGB"))


def damaged() -> Iterator[Case]:
    """What is cut or garbled is refused; what only lacks its end marker is read."""
    picture = scene(15)
    large = picture.resize((480, 336))
    for name, options in {"baseline": {}, "progressive": {"progressive": True}, "gray": {}, "cmyk": {}}.items():
        source = large.convert({"gray": "L", "cmyk": "CMYK"}.get(name, "RGB"))
        data = encoded(source, "JPEG", quality=90, **options)
        yield Case("damage", f"{name}-no-end.jpeg", data[:-2])
        yield Case("damage", f"{name}-cut.jpeg", data[: int(len(data) * 0.6)], "refused")
        yield Case("damage", f"{name}-grey-half.jpeg", data[: int(len(data) * 0.6)] + b"\xff\xd9", "refused")
        middle = len(data) * 2 // 3
        if name == "baseline":
            yield Case("damage", f"{name}-zeros.jpeg", data[:middle] + bytes(60) + data[middle + 60 :], "refused")
        yield Case("damage", f"{name}-trailing.jpeg", data + b"more" * 30)
    for form, options in {"PNG": {}, "WEBP": {"quality": 90}, "GIF": {}, "TIFF": {"compression": "tiff_lzw"}, "BMP": {}, "AVIF": {}}.items():
        data = encoded(large, form, **options)
        yield Case("damage", f"cut.{form.lower()}", data[: int(len(data) * 0.6)], "refused")
    data = encoded(large, "PNG")
    middle = len(data) // 2
    yield Case("damage", "bit-flip.png", data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1 :], "refused")
    yield Case("damage", "no-end.png", data[:-12])
    gif = encoded(picture, "GIF")
    yield Case("damage", "no-end.gif", gif[:-1])


def odd_metadata() -> Iterator[Case]:
    """Metadata that readers stumble over: the pixels are sound."""
    picture = scene(16)
    plain = encoded(picture, "PNG")
    pieces = {
        "broken-exif": chunk(b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03"),
        "large-text": chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(b"[0, 1, 2], " * 400_000)),
        "large-profile": chunk(b"iCCP", b"p\0\0" + zlib.compress(odd_profiles.matrix(odd_profiles.SRGB) + bytes(3_000_000))),
        "broken-profile": chunk(b"iCCP", b"p\0\0" + b"no zlib stream"),
        "bad-text": chunk(b"zTXt", b"Comment\0\0" + b"\xff" * 40),
        "bad-checksum": chunk(b"tEXt", b"Comment\0hello")[:-1] + b"\0",
        "unknown": chunk(b"prVt", bytes(100)),
        "odd-time": chunk(b"tIME", bytes(3)),
        "short-density": chunk(b"pHYs", bytes(2)),
        "short-gamma": chunk(b"gAMA", b"\0"),
        "short-primaries": chunk(b"cHRM", b"\0\0"),
    }
    for name, piece in pieces.items():
        yield Case("odd metadata", f"{name}.png", beside_pixels(plain, piece))
    jpeg = encoded(picture, "JPEG", quality=92)
    broken = {"exif-not-tiff": b"Exif\0\0" + b"no tiff here", "exif-loop": b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x8769, 4, 1, 8) + bytes(4),
              "exif-cut": b"Exif\0\0II*\0\x08\0\0\0\x05\0", "short-icc": b"ICC_PROFILE\0\x01\x01abc", "icc-of-many": b"ICC_PROFILE\0\x02\x05" + bytes(50)}  # fmt: skip
    for name, body in broken.items():
        marker = b"\xff\xe2" if "icc" in name else b"\xff\xe1"
        yield Case("odd metadata", f"{name}.jpeg", jpeg[:2] + marker + struct.pack(">H", len(body) + 2) + body + jpeg[2:])
    for name, body in {"mpf": b"MPF\0" + b"II*\0\xff\xff\xff\xff", "photoshop": b"Photoshop 3.0\0" + b"8BIM" + bytes(9)}.items():
        marker = b"\xff\xe2" if name == "mpf" else b"\xff\xed"
        yield Case("odd metadata", f"{name}.jpeg", jpeg[:2] + marker + struct.pack(">H", len(body) + 2) + body + jpeg[2:])
