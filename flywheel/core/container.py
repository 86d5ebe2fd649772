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
_PROFILE = 2**24  # bytes of a colour profile that is kept, unpacked
# Text chunks that say how a picture is to be seen; all others are dropped.
_KEYWORDS = (b"Raw profile type exif", b"Raw profile type APP1", b"Raw profile type xmp", b"XML:com.adobe.xmp")
_KEPT = (b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"sBIT", b"bKGD", b"pHYs", b"acTL", b"fcTL", b"fdAT")


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
    """The same file; of a PNG without chunks that a reader may stumble over, and with its EXIF before the pixels.

    Dropped are text, damaged, unknown and over-large ancillary chunks. Pixels stay as they are.
    """
    if not data.startswith(_PNG):
        return data
    ahead: list[bytes] = []
    rest: list[bytes] = []
    changed = seen_pixels = False
    for kind, start, end in _chunks(data):
        critical = kind[0] < ord("a")
        if critical or (kind in _KEPT and _has_its_checksum(data[start:end])):
            rest.append(data[start:end])
            seen_pixels |= kind == b"IDAT"
        elif _is_sound(kind, data[start:end]):
            ahead.append(data[start:end])
            changed |= seen_pixels
        else:
            changed = True
    if not changed or not rest:
        return data
    return b"".join([_PNG, rest[0], *ahead, *rest[1:]])


def jpeg_scans_are_complete(data: bytes) -> bool:
    """Do the scans of a JPEG, as far as their headers are there, give every bit of every coefficient?

    False for a progressive file that ends before its last scan: it decodes without a complaint, to less detail.
    """
    components: set[int] = set()
    open_bits: dict[tuple[int, int], int] = {}  # (component, coefficient) → lowest bit not yet given
    progressive = False
    for marker, body in _segments(data):
        if 0xC0 <= marker <= 0xC2 and len(body) >= 6:
            progressive, components = marker == 0xC2, set(body[6 : 6 + 3 * body[5] : 3])
        elif marker == 0xDA and body and len(body) >= 4 + 2 * body[0]:
            first, last, bits = body[1 + 2 * body[0]], body[2 + 2 * body[0]], body[3 + 2 * body[0]] & 15
            for component in body[1 : 1 + 2 * body[0] : 2]:
                open_bits |= dict.fromkeys([(component, k) for k in range(first, min(last, 63) + 1)], bits)
    return not progressive or all(open_bits.get((c, k), 1) == 0 for c in components for k in range(64))


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of each segment of a JPEG that has a length; the data of scans are skipped."""
    place = 2
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        marker = data[place + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD9:
            place += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        yield marker, data[place + 4 : place + 2 + length]
        place += 2 + length


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk of a PNG; the last one may be cut short."""
    place = len(_PNG)
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        yield data[place + 4 : place + 8], place, min(end, len(data))
        place = end


def _is_sound(kind: bytes, chunk: bytes) -> bool:
    """May this ancillary chunk stay?"""
    body = chunk[8:-4]
    if not _has_its_checksum(chunk):
        return False
    if kind == b"eXIf":
        return body[:4] in (b"II*\0", b"MM\0*") and len(body) <= _TEXT
    if kind == b"iCCP":
        return _unpacks(body.partition(b"\0")[2][1:], _PROFILE)
    if kind in (b"tEXt", b"zTXt", b"iTXt"):
        keyword, _, text = body.partition(b"\0")
        if keyword not in _KEYWORDS or len(body) > _TEXT:
            return False
        if kind == b"iTXt":
            return text[:1] == b"\0" or _unpacks(text[2:].partition(b"\0")[2].partition(b"\0")[2], _TEXT)
        return kind == b"tEXt" or _unpacks(text[1:], _TEXT)
    return False


def _has_its_checksum(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _unpacks(packed: bytes, limit: int) -> bool:
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, limit)
    except zlib.error:
        return False
    return unpacker.eof
