"""Pictures of training rows: upright, scaled and cropped to their layout, and encoded again."""

from __future__ import annotations

import io

from PIL import Image, ImageFilter, ImageOps

from flywheel.core.image import decode, decode_fitted, open_image

ENCODING = 2  # raised when `fit` or `fit_mask` give other bytes for the same picture
_PNG_LEVEL = 3
_JPEG = {"quality": 95, "subsampling": 0}  # 4:4:4: coloured edges stay sharp


def fit(image: bytes, width: int, height: int, turn: int = 0) -> bytes:
    """Encoded picture of exactly width × height: upright, scaled to cover, cropped to the centre. Errors: `BadImage`.

    turn: degrees clockwise, beyond EXIF. A JPEG stays JPEG: it is lossy already, and PNG would be several times larger.
    All other formats, rendered text above all, become lossless PNG.
    """
    picture = decode_fitted(image, width, height, turn)
    out = io.BytesIO()
    if open_image(image).format in ("JPEG", "MPO"):
        picture.save(out, "JPEG", **_JPEG)
    else:
        picture.save(out, "PNG", compress_level=_PNG_LEVEL)
    return out.getvalue()


def fit_mask(mask: bytes, width: int, height: int) -> bytes:
    """The mask for a picture resized by `fit`: gray PNG, only black and white. Errors: `BadImage`.

    A resized mask grows by three pixels, as far as the picture's resampling spreads a change.
    """
    gray = decode(mask).convert("L")
    if gray.size != (width, height):
        gray = ImageOps.fit(gray, (width, height), Image.Resampling.BOX).point(lambda v: 255 * (v > 0))
        gray = gray.filter(ImageFilter.MaxFilter(7))
    out = io.BytesIO()
    gray.point(lambda v: 255 * (v > 0)).save(out, "PNG", compress_level=_PNG_LEVEL)
    return out.getvalue()
