"""Damaged pixels, and metadata that readers stumble over."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from benchmarks.odd import profile
from benchmarks.odd.png import beside_pixels, chunk
from benchmarks.odd.scene import Case, encoded, scene

# Why the browser is not followed.
_NO_END = "it leaves the last rows gray, which are there"


def damaged() -> Iterator[Case]:
    """What is cut or garbled is refused; what only lacks its end marker is read."""
    picture = scene(15)
    large = picture.resize((480, 336))
    for name, options in {"baseline": {}, "progressive": {"progressive": True}, "gray": {}, "cmyk": {}}.items():
        source = large.convert({"gray": "L", "cmyk": "CMYK"}.get(name, "RGB"))
        data = encoded(source, "JPEG", quality=90, **options)
        complete = Image.open(io.BytesIO(data)).convert("RGB")
        yield Case(
            "damage", f"{name}-no-end.jpeg", data[:-2], "source", complete, _NO_END if name != "progressive" else ""
        )
        yield Case("damage", f"{name}-cut.jpeg", data[: int(len(data) * 0.6)], "refused")
        yield Case("damage", f"{name}-grey-half.jpeg", data[: int(len(data) * 0.6)] + b"\xff\xd9", "refused")
        middle = len(data) * 2 // 3
        if name == "baseline":
            yield Case("damage", f"{name}-zeros.jpeg", data[:middle] + bytes(60) + data[middle + 60 :], "refused")
        yield Case("damage", f"{name}-trailing.jpeg", data + b"more" * 30)
    for form, options in {
        "PNG": {},
        "WEBP": {"quality": 90},
        "GIF": {},
        "TIFF": {"compression": "tiff_lzw"},
        "BMP": {},
        "AVIF": {},
    }.items():
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
        "large-profile": chunk(b"iCCP", b"p\0\0" + zlib.compress(profile.matrix(profile.SRGB) + bytes(3_000_000))),
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
    loop = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x8769, 4, 1, 8) + bytes(4)
    broken = {
        "exif-not-tiff": b"Exif\0\0no tiff here",
        "exif-loop": b"Exif\0\0" + loop,
        "exif-cut": b"Exif\0\0II*\0\x08\0\0\0\x05\0",
        "short-icc": b"ICC_PROFILE\0\x01\x01abc",
        "icc-of-many": b"ICC_PROFILE\0\x02\x05" + bytes(50),
    }
    for name, body in broken.items():
        marker = b"\xff\xe2" if "icc" in name else b"\xff\xe1"
        yield Case(
            "odd metadata", f"{name}.jpeg", jpeg[:2] + marker + struct.pack(">H", len(body) + 2) + body + jpeg[2:]
        )
    for name, body in {
        "mpf": b"MPF\0" + b"II*\0\xff\xff\xff\xff",
        "photoshop": b"Photoshop 3.0\0" + b"8BIM" + bytes(9),
    }.items():
        marker = b"\xff\xe2" if name == "mpf" else b"\xff\xed"
        yield Case(
            "odd metadata", f"{name}.jpeg", jpeg[:2] + marker + struct.pack(">H", len(body) + 2) + body + jpeg[2:]
        )
