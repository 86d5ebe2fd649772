"""One frame of an opened picture → RGB of 8 bits in sRGB, what is transparent in it composited on a ground colour."""

from __future__ import annotations

import numpy as np
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from flywheel.core.color import to_srgb

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_WHITE_IS_ZERO, _SIGNED = 0, 2
_WITH_ALPHA = {"1": "LA", "L": "LA", "La": "LA"}  # mode → mode with alpha; RGBA for all others
_NEAR_ONE = 8.0  # floats up to here are in units of white, brighter lights among them
_BELOW_BLACK = -0.05  # floats of which more than 1 % are lower span -1 to 1
_WIDTHS, _SIGNED_WIDTHS = (8, 16, 31, 32, 63, 64), (7, 15, 31, 63)  # bits of common ranges
# EXIF orientation → what turns the stored picture upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def rgb(image: Image.Image, ground: tuple[int, int, int]) -> Image.Image:
    """The current frame of an opened image. Errors: whatever its decoder raises."""
    extent = image.dispose_extent if isinstance(image, GifImageFile) and image.tell() == 0 else None
    image.load()
    frame = _with_alpha(_eight_bits(image))
    if frame.mode in ("RGBA", "LA"):
        color = to_srgb(frame.convert("RGB" if frame.mode == "RGBA" else "L"), image.info.get("icc_profile"))
        shown = Image.new("RGB", image.size, ground)
        shown.paste(color, mask=frame.getchannel("A"))
    else:
        shown = to_srgb(frame, image.info.get("icc_profile"))
    if extent and tuple(extent) != (0, 0, *image.size):  # the first frame of a GIF may be smaller than its screen
        screen = Image.new("RGB", image.size, ground)
        screen.paste(shown.crop(extent), extent[:2])
        return screen
    return shown


def _with_alpha(image: Image.Image) -> Image.Image:
    """The image without a palette, premultiplied colours or a colour key: L, LA, RGB, RGBA, CMYK, LAB or YCbCr."""
    key = image.info.get("transparency")
    mode = image.mode
    if mode == "1":
        image = image.convert("L")
        if key is not None:
            image.info["transparency"] = key
    keyed = key is not None and mode in ("1", "L", "RGB")
    if mode in ("RGBa", "La") or keyed:
        return image.convert(_WITH_ALPHA.get(mode, "RGBA"))
    if mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image; one of deeper gray samples, whole or float, scaled to 8 bits."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode == "I" and tags.get(_SAMPLE_FORMAT, (_SIGNED,))[0] != _SIGNED:
        values = values.view(np.uint32)
    bits = tags.get(_BITS, (None,))
    depth = bits[0] if image.mode.startswith("I;16") else None
    if values.dtype == np.uint16:  # the same scale for every picture: a table saves most of the memory
        levels = np.round(scaled(np.arange(1 << 16, dtype=np.uint16), bits=depth)).astype(np.uint8)[values]
    else:
        levels = np.round(scaled(values, bits=depth)).astype(np.uint8)
    picture = Image.fromarray(255 - levels if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else levels)
    key = image.info.get("transparency")
    if isinstance(key, int):
        picture.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return picture


def scaled(values: np.ndarray, bits: int | None = None) -> np.ndarray:
    """Samples as float64, 0 to 255, by the range of their type; where that is wide or float, of their values.

    bits: of a whole sample without sign, where they are fewer than its type has. Whole samples of up to 16 bits span
    their type (signed ones without a negative value its upper half). Wider ones take the smallest common range that
    holds them all. Floats are in units of white, 0 to 1, where nearly all are there or none exceeds 8.
    """
    wide = values.astype(np.float64)
    if values.dtype.kind == "f":
        finite = wide[np.isfinite(wide)]
        wide = np.nan_to_num(wide, nan=0.0, posinf=max(1.0, float(finite.max(initial=0.0))), neginf=0.0)
    bottom, top = _range(values.dtype, wide, bits)
    return np.clip((wide - bottom) * (255 / (top - bottom)), 0, 255)


def _range(kind: np.dtype, wide: np.ndarray, bits: int | None) -> tuple[float, float]:
    """(black, white)."""
    low, high = float(wide.min(initial=0.0)), float(wide.max(initial=0.0))
    if kind.kind == "f" and (not wide.size or high <= _NEAR_ONE or np.percentile(wide, 99) <= 1):
        return (-1.0, 1.0) if low < _BELOW_BLACK and np.percentile(wide, 1) < _BELOW_BLACK else (0.0, 1.0)
    if kind.kind == "u" and kind.itemsize <= 2:
        return 0.0, float(2 ** (bits or 8 * kind.itemsize) - 1)
    if kind.kind == "i" and kind.itemsize <= 2:
        widths: tuple[int, ...] = (8 * kind.itemsize - 1,)
    else:
        widths = _WIDTHS if low >= 0 else _SIGNED_WIDTHS
    ranges = [(-float(2**n) if low < 0 else 0.0, float(2**n - 1)) for n in widths]
    return next((r for r in ranges if r[0] <= low and high <= r[1]), (low, max(high, low + 1)))
