"""JPEG by libjpeg-turbo: to RGB at full or reduced scale, its complaints about the scan not forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from flywheel.core.errors import BadImage

END = b"\xff\xd9"  # marker of the end
_DAMAGE = ("Corrupt JPEG data", "Premature end", "Invalid SOS", "Bogus")  # what libjpeg says of a damaged scan
_SCAN, _COMMENT = 0xDA, 0xFE  # markers
_DESCRIBING = {0xE0: 18, 0xEE: 16}  # JFIF and Adobe, which say how colours are stored, and bytes of a whole one


def decoded(image: Image.Image, data: bytes, side: int = 0) -> np.ndarray:
    """A JPEG as stored, RGB uint8 [H, W, 3], at the least of 1, 1/2, 1/4 and 1/8 of its size that is not below `side`.

    Errors: `BadImage` for damage inside the scan; a missing end marker alone is none.
    """
    import simplejpeg

    width, height = image.size
    factor = reduction(image, side)
    least = {"min_width": -(-width // factor), "min_height": -(-height // factor)} if factor > 1 else {}
    return _strict(lambda d: simplejpeg.decode_jpeg(d, **least), data, lambda: np.asarray(image.convert("RGB")))


def reduction(image: Image.Image, side: int) -> int:
    """How many times smaller than stored `decoded` returns the JPEG: 1, 2, 4 or 8. Its edges are rounded up."""
    return next((f for f in (8, 4, 2) if side and max(image.size) >= f * side), 1)


def require_sound_scan(data: bytes) -> None:
    """Errors: `BadImage` where libjpeg complains about a JPEG that Pillow decodes (CMYK, gray with a profile)."""
    import simplejpeg

    _strict(lambda d: simplejpeg.decode_jpeg(d, min_factor=8), data, lambda: np.empty(0))


def _strict(decoder: Callable[[bytes], np.ndarray], data: bytes, other: Callable[[], np.ndarray]) -> np.ndarray:
    """What `decoder` makes of a JPEG without a warning; `other` where it cannot decode this kind at all."""
    try:
        return decoder(data)
    except ValueError as error:
        fault = str(error)
    for repair in (_with_end, _with_profile_dropped):
        repaired = repair(data, fault)
        if repaired:
            try:
                return decoder(repaired)
            except ValueError as error:
                data, fault = repaired, str(error)
    if any(damage in fault for damage in _DAMAGE):
        raise BadImage(f"truncated or corrupt: {fault}")
    try:
        return other()
    except (OSError, ValueError, SyntaxError) as error:
        raise BadImage(f"truncated or corrupt: {error}") from error


def _with_end(data: bytes, fault: str) -> bytes:
    """The JPEG with an end marker where that is all that it lacks; else empty."""
    return data + END if fault.startswith("Premature end of JPEG file") and scans_are_complete(data) else b""


def _with_profile_dropped(data: bytes, fault: str) -> bytes:
    """The JPEG without metadata where the fault is in its profile; else empty."""
    return without_metadata(data) if "bad ICC marker" in fault else b""


def without_metadata(data: bytes) -> bytes:
    """The JPEG without profile, EXIF and comments."""
    place, kept = 2, [data[:2]]
    for marker, start, end in _segments(data):
        if marker == _SCAN:
            break
        describing = end - start >= _DESCRIBING.get(marker, len(data) + 1)
        if describing or not (0xE0 <= marker <= 0xEF or marker == _COMMENT):
            kept.append(data[start:end])
        place = end
    return b"".join([*kept, data[place:]])


def scans_are_complete(data: bytes) -> bool:
    """Do the scans of a JPEG, as far as their headers are there, give every bit of every coefficient?

    False for a progressive file that ends before its last scan: it decodes without a complaint, to less detail.
    """
    components: set[int] = set()
    open_bits: dict[tuple[int, int], int] = {}  # (component, coefficient) → lowest bit not yet given
    progressive = False
    for marker, start, end in _segments(data):
        body = data[start + 4 : end]
        if 0xC0 <= marker <= 0xC2 and len(body) >= 6:
            progressive, components = marker == 0xC2, set(body[6 : 6 + 3 * body[5] : 3])
        elif marker == _SCAN and body and len(body) >= 4 + 2 * body[0]:
            first, last, bits = body[1 + 2 * body[0]], body[2 + 2 * body[0]], body[3 + 2 * body[0]] & 15
            for component in body[1 : 1 + 2 * body[0] : 2]:
                open_bits |= dict.fromkeys([(component, k) for k in range(first, min(last, 63) + 1)], bits)
    return not progressive or all(open_bits.get((c, k), 1) == 0 for c in components for k in range(64))


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment of a JPEG that has a length; the data of scans are skipped."""
    place = 2
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):
        marker = data[place + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD9:
            place += 1 if marker == 0xFF else 2
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        yield marker, place, end
        place = end
