"""Decode encoded images to upright RGB."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 100_000_000  # limit per image, against decompression bombs
WORKING_SIDE = 512  # pixels: long side at which pixel statistics are computed
_JPEGS = ("JPEG", "MPO")
_ORIENTATION = 0x0112  # EXIF tag


class BadImage(ValueError):
    """The bytes are not a usable image; the message says why: zero bytes, not an image, too large or truncated."""


def open_image(data: bytes) -> Image.Image:
    """Open encoded bytes without decoding the pixels. Errors: `BadImage` for zero bytes, non-images, huge images."""
    if not data:
        raise BadImage("zero bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PIL warns about large images; the limit below decides
            image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise BadImage(f"too large: {error}") from error
    except UnidentifiedImageError as error:  # its message contains a memory address; equal faults need equal reasons
        raise BadImage("not an image: no known image format") from error
    except Exception as error:  # noqa: BLE001 - PIL plugins raise any exception on hostile bytes
        raise BadImage(f"not an image: {error}") from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"too large: {image.width}x{image.height} is over {MAX_PIXELS} pixels")
    return image


def decode(data: bytes) -> Image.Image:
    """Decode to upright RGB at full resolution. Errors: `BadImage`, also for truncated data.

    >>> import flywheel as fw
    >>> from pathlib import Path
    >>> fw.decode(Path("photos/0.png").read_bytes()).size
    (400, 300)
    """
    return _load(open_image(data))


def decode_working(data: bytes) -> np.ndarray:
    """Decode to upright RGB, uint8 [H, W, 3], with a long side of at most `WORKING_SIDE` pixels. Errors: `BadImage`."""
    header = open_image(data)
    reduced = reduced_jpeg(header, data, WORKING_SIDE) if is_jpeg(header) else None
    return shrunk(np.asarray(decode(data)) if reduced is None else reduced, WORKING_SIDE)


def is_jpeg(header: Image.Image) -> bool:
    """Is it a JPEG in color or gray? Those can be decoded at reduced scale."""
    return header.format in _JPEGS and header.mode in ("RGB", "L")


def reduced_jpeg(header: Image.Image, data: bytes, side: int) -> np.ndarray | None:
    """Decode a JPEG to upright RGB, uint8 [H, W, 3], at reduced scale.

    The scale is the smallest of 1, 1/2, 1/4 and 1/8 with a long side of at least `side` pixels. Returns None if the
    decoder fails, for example on truncated data: decode with PIL then, which is slower and decides what is usable.
    """
    import simplejpeg

    width, height = header.size
    factor = next((f for f in (8, 4, 2) if max(width, height) >= f * side), 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            orientation = header.getexif().get(_ORIENTATION, 1)
        pixels = simplejpeg.decode_jpeg(data, min_width=-(-width // factor), min_height=-(-height // factor))
    except Exception:  # noqa: BLE001 - not lost: the caller decodes the same bytes with PIL
        return None
    return _turned(pixels, orientation)


def _turned(image: np.ndarray, orientation: object) -> np.ndarray:
    """Apply an EXIF orientation (1 to 8) to [H, W, C]; other values change nothing."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """Shrink [H, W, 3] to a long side of at most `side` pixels (area average); smaller images stay as they are."""
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
    except Exception as error:  # noqa: BLE001 - decoders raise any exception on hostile bytes
        raise BadImage(f"truncated or corrupt: {error}") from error
