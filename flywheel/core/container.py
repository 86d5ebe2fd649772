"""Image containers, without a decoder: which format it is, and a PNG without the metadata that breaks readers.

Pure functions of bytes; nothing here raises on damaged input.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
# First bytes → format, as PIL names the ones that are accepted.
_STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (_PNG, "PNG"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"\xff\x0a", "JXL"),
    (b"\0\0\0\x0cJXL ", "JXL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"%PDF", "PDF"),
    (b"8BPS", "PSD"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\2\0", "CUR"),
    (b"icns", "ICNS"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"qoif", "QOI"),
    (b"DDS ", "DDS"),
    (b"\xd7\xcd\xc6\x9a", "WMF"),
    (b"SIMPLE", "FITS"),
    *((b"P%d\n" % n, "PPM") for n in range(1, 7)),
)  # fmt: skip
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_TEXT = 2**20  # bytes of a text chunk that is kept
# Keywords of text chunks that say how a picture is to be seen, and the ones that Pillow knows them by.
_KEYWORDS = {
    b"Raw profile type exif": b"Raw profile type exif",
    b"Raw profile type APP1": b"Raw profile type exif",
    b"XML:com.adobe.xmp": b"XML:com.adobe.xmp",
}
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
_GRAY, _COLOR, _PALETTE = 0, 2, 3  # colour types of PNG


def name_of(data: bytes) -> str:
    """The format that the first bytes name, as PIL names it; empty where they name none."""
    if data[4:8] == b"ftyp":
        brands = (data[8:12], *(data[i : i + 4] for i in range(16, min(64, len(data)), 4)))
        if any(b in (b"avif", b"avis") for b in brands):
            return "AVIF"
        return "HEIF" if any(b in _HEIF_BRANDS for b in brands) else ""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((name for start, name in _STARTS if data.startswith(start)), "")


def readable_metadata(data: bytes) -> bytes:
    """The same file; of a PNG only what shows: pixels, transparency, animation, and orientation before the pixels.

    Dropped are damaged, unknown and descriptive chunks; colour chunks are read by `flywheel.core.color`. Pixels stay as
    they are.
    """
    if not data.startswith(_PNG) or len(data) < 33:
        return data
    ahead: list[bytes] = []
    rest: list[bytes] = []
    for kind, start, end in _chunks(data):
        chunk = data[start:end]
        if kind[0] < ord("a"):
            rest.append(chunk)
        elif _has_its_checksum(chunk):
            if kind == b"tRNS":
                rest += _transparency(chunk, depth=data[24], color=data[25])
            elif kind in _ANIMATION:
                rest.append(chunk)
            elif says := _orientation(kind, chunk[8:-4]):
                ahead.append(says)
    return b"".join([_PNG, *rest[:1], *ahead, *rest[1:]])


def chunks_before_pixels(data: bytes) -> dict[bytes, bytes]:
    """Type → body of the sound chunks of a PNG that come before its pixels; the first of each type."""
    bodies: dict[bytes, bytes] = {}
    for kind, start, end in _chunks(data):
        if kind == b"IDAT":
            break
        if _has_its_checksum(data[start:end]):
            bodies.setdefault(kind, data[start + 8 : end - 4])
    return bodies


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk of a PNG; the last one may be cut short."""
    place = len(_PNG)
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        yield data[place + 4 : place + 8], place, min(end, len(data))
        place = end


def _transparency(chunk: bytes, *, depth: int, color: int) -> list[bytes]:
    """A tRNS chunk whose key is in the 8-bit samples that Pillow makes of other depths; none where it means nothing."""
    body = chunk[8:-4]
    if color == _PALETTE:
        return [chunk]
    if len(body) != {_GRAY: 2, _COLOR: 6}.get(color):
        return []
    if color == _GRAY and depth < 8:
        key = (int.from_bytes(body, "big") & (2**depth - 1)) * 255 // (2**depth - 1)
        return [_chunk(b"tRNS", key.to_bytes(2, "big"))]
    if color == _COLOR and depth == 16:
        return [_chunk(b"tRNS", b"".join(b"\0" + body[i : i + 1] for i in (0, 2, 4)))]
    return [chunk]


def _orientation(kind: bytes, body: bytes) -> bytes:
    """The chunk, as Pillow reads it, where it can say which way is up; else empty."""
    if kind == b"eXIf":
        exif = body.removeprefix(b"Exif\0\0")
        return _chunk(kind, exif) if exif[:4] in (b"II*\0", b"MM\0*") and len(exif) <= _TEXT else b""
    keyword, _, text = body.partition(b"\0")
    if kind not in (b"tEXt", b"zTXt", b"iTXt") or keyword not in _KEYWORDS or len(body) > _TEXT:
        return b""
    if kind == b"iTXt":
        packed = text[2:].partition(b"\0")[2].partition(b"\0")[2]
        return _chunk(kind, body) if text[:1] == b"\0" or _unpacks(packed, _TEXT) else b""
    if kind == b"zTXt" and not _unpacks(text[1:], _TEXT):
        return b""
    return _chunk(kind, _KEYWORDS[keyword] + b"\0" + text)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def _has_its_checksum(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _unpacks(packed: bytes, limit: int) -> bool:
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, limit)
    except zlib.error:
        return False
    return unpacker.eof
