"""Orientation 1 to 8, wherever it stands."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from PIL import Image, ImageOps

from benchmarks.odd.png import beside_pixels, chunk
from benchmarks.odd.scene import ORIENTATION, Case, encoded, scene, tagged

# Why the browser is not followed.
_NO_EXIF = "it ignores EXIF in WebP; viewers, editors and other browsers turn the picture"
_NO_TEXT = "it ignores raw profiles and XMP; viewers and editors turn the picture"
_NO_LATE = "it draws before it reads EXIF behind the pixels"


def orientations() -> Iterator[Case]:
    """Orientation 1 to 8 in the EXIF of each container."""
    picture = scene(7)
    for value in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = value
        upright = ImageOps.exif_transpose(tagged(picture, value))
        body = exif.tobytes().removeprefix(b"Exif\0\0")
        plain = encoded(picture, "PNG")
        yield Case("JPEG orientation", f"turned{value}.jpeg", encoded(picture, "JPEG", quality=95, exif=exif))
        yield Case("PNG orientation", f"turned{value}.png", beside_pixels(plain, chunk(b"eXIf", body)))
        yield Case(
            "PNG late orientation",
            f"late{value}.png",
            beside_pixels(plain, chunk(b"eXIf", body), late=True),
            "source",
            upright,
            _NO_LATE if value > 1 else "",
        )
        yield Case(
            "WEBP orientation",
            f"turned{value}.webp",
            encoded(picture, "WEBP", lossless=True, exif=exif),
            "source",
            upright,
            _NO_EXIF if value > 1 else "",
        )
        yield Case("AVIF orientation", f"turned{value}.avif", encoded(picture, "AVIF", quality=95, exif=exif))
        yield Case("TIFF orientation", f"turned{value}.tiff", encoded(picture, "TIFF", exif=exif), "tifffile")


def elsewhere() -> Iterator[Case]:
    """Orientation in raw profiles and in XMP. Browsers ignore both; viewers and editors do not."""
    picture = scene(8)
    plain = encoded(picture, "PNG")
    for value in (2, 3, 6, 7):
        exif = Image.Exif()
        exif[ORIENTATION] = value
        upright = ImageOps.exif_transpose(tagged(picture, value))
        raw = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
        lines = "\n".join(raw.hex()[i : i + 72] for i in range(0, 2 * len(raw), 72))
        text = f"\nexif\n{len(raw):8d}\n{lines}\n".encode()
        xmp = (
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{value}"/></rdf:RDF>'
            "</x:xmpmeta>"
        ).encode()
        kinds = {
            "zTXt": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
            "tEXt": chunk(b"tEXt", b"Raw profile type exif\0" + text),
            "APP1": chunk(b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(text.replace(b"exif", b"APP1"))),
            "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        }
        for name, piece in kinds.items():
            for late in (False, True):
                yield Case(
                    "PNG orientation elsewhere",
                    f"{name}{value}{'-late' * late}.png",
                    beside_pixels(plain, piece, late=late),
                    "source",
                    upright,
                    _NO_TEXT,
                )
        yield Case(
            "WEBP orientation elsewhere",
            f"XMP{value}.webp",
            encoded(picture, "WEBP", lossless=True, xmp=xmp),
            "source",
            upright,
            _NO_TEXT,
        )
        yield Case(
            "JPEG orientation elsewhere",
            f"XMP{value}.jpeg",
            encoded(picture, "JPEG", quality=98, subsampling=0, xmp=xmp),
            "source",
            upright,
            _NO_TEXT,
        )
