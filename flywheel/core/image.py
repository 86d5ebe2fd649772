"""Decoding: encoded bytes to an upright RGB picture."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 100_000_000  # decompression-bomb limit per image
WORKING_SIDE = 512  # long side, pixels, at which pixel statistics are defined
_JPEGS = ("JPEG", "MPO")
_ORIENTATION = 0x0112  # EXIF tag


class BadImage(ValueError):
    """The bytes are no usable image; the message names the fault (zero bytes, not an image, too large, truncated)."""


def open_image(data: bytes) -> Image.Image:
    """Open encoded bytes without decoding. Errors: `BadImage` for zero bytes, non-images and decompression bombs."""
    if not data:
        raise BadImage("zero bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns of large images; the limit below is ours
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise BadImage(f"too large: {error}") from error
    except UnidentifiedImageError as error:  # its message holds a memory address: equal faults need equal reasons
        raise BadImage("not an image: no known image format") from error
    except Exception as error:  # noqa: BLE001 - PIL plugins raise anything on hostile bytes; all of it means "not an image"
        raise BadImage(f"not an image: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"too large: {image.width}x{image.height} is over {MAX_PIXELS} pixels")
    return image


def decode(data: bytes) -> Image.Image:
    """Fully decode to upright RGB. Errors: `BadImage`, truncated data included."""
    return _load(open_image(data))


def decode_working(data: bytes) -> np.ndarray:
    """Decode to upright RGB uint8 [H, W, 3] with long side at most `WORKING_SIDE` pixels."""
    header = open_image(data)
    reduced = reduced_jpeg(header, data, WORKING_SIDE) if is_jpeg(header) else None
    return shrunk(np.asarray(decode(data)) if reduced is None else reduced, WORKING_SIDE)


def is_jpeg(header: Image.Image) -> bool:
    """A JPEG in color or gray: what can be decoded at reduced scale."""
    return header.format in _JPEGS and header.mode in ("RGB", "L")


def reduced_jpeg(header: Image.Image, data: bytes, side: int) -> np.ndarray | None:
    """A JPEG as upright RGB uint8 [H, W, 3], at the least of 1, 1/2, 1/4 and 1/8 of its size that is not below `side`.

    None where the decoder has any complaint (cut short, corrupt): PIL, slower, then says what to make of it.
    """
    import simplejpeg

    width, height = header.size
    factor = next((f for f in (8, 4, 2) if max(width, height) >= f * side), 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            turn = header.getexif().get(_ORIENTATION, 1)
        found = simplejpeg.decode_jpeg(data, min_width=-(-width // factor), min_height=-(-height // factor))
    except Exception:  # noqa: BLE001 - not lost: PIL decodes the same bytes next, and its verdict counts
        return None
    return _turned(found, turn)


def _turned(image: np.ndarray, orientation: object) -> np.ndarray:
    """[H, W, C] as EXIF orientations 1 to 8 want it; any other value turns nothing."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """The picture with a long side of at most `side` pixels (area average)."""
    import cv2

    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _load(image: Image.Image) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # noqa: BLE001 - decoders raise anything on hostile bytes; all of it is one bad image
        raise BadImage(f"truncated or corrupt: {error}") from error
