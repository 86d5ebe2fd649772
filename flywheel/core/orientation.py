"""EXIF orientation, read from the header without decoding, and rotation by right angles."""

from __future__ import annotations

from PIL import Image

_TAG = 0x0112
INVALID = -1


def exif_orientation(image: Image.Image) -> int:
    """The stored orientation, 1 to 8 in EXIF; 1 if there is none; `INVALID` if the value is not an integer.

    Integers that EXIF does not define are returned as stored, except 0: much software writes it for "unknown", so it
    counts as none.
    """
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # PIL would decode the whole image to look for EXIF after the pixels
    value = image.getexif().get(_TAG, 1)
    return (value or 1) if isinstance(value, int) else INVALID


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height), pixels, with the EXIF orientation applied."""
    width, height = image.size
    return (height, width) if exif_orientation(image) in (5, 6, 7, 8) else (width, height)


def turned(image: Image.Image, degrees: int) -> Image.Image:
    """The image rotated clockwise by 0, 90, 180 or 270 degrees."""
    turns = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
    return image.transpose(turns[degrees]) if degrees else image
