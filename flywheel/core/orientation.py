"""Which way up: EXIF orientation, read from the header without decoding, and turning by right angles."""

from __future__ import annotations

from PIL import Image

_TAG = 0x0112
INVALID = -1


def exif_orientation(image: Image.Image) -> int:
    """1–8 as EXIF defines it; 1 where there is none; any other stored integer as it is, `INVALID` for other values.

    0, which EXIF does not define, is what much software writes for "not known": it counts as none.
    """
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # PIL would decode the whole picture to look behind its pixels
    value = image.getexif().get(_TAG, 1)
    return (value or 1) if isinstance(value, int) else INVALID


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) after the EXIF orientation is applied."""
    width, height = image.size
    return (height, width) if exif_orientation(image) in (5, 6, 7, 8) else (width, height)


def turned(image: Image.Image, degrees: int) -> Image.Image:
    """The picture turned clockwise by 0, 90, 180 or 270 degrees."""
    turns = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
    return image.transpose(turns[degrees]) if degrees else image
