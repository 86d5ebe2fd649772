"""Read an image header; only files of several frames are decoded, to know which one is taken."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pyarrow as pa
from PIL import Image

from flywheel.core.image import describe, describe_header
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item

# Luminance quantisation table of ITU-T T.81, annex K.1; common JPEG encoders use it at quality 50.
_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29,
    51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120,
    101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


class Header:
    """Format, size, orientation, samples, frames, bytes per pixel, and JPEG quality by the quantisation table."""

    name = "header"
    version = "2"
    fields = (
        column("format", pa.string(), "container format as PIL names it: JPEG, PNG, WEBP, …"),
        column("short_edge", pa.int32(), "pixels, shorter side, upright"),
        column("long_edge", pa.int32(), "pixels, longer side, upright"),
        column("aspect", pa.float64(), "width / height, upright"),
        column("bytes_per_pixel", pa.float64(), "encoded bytes per pixel"),
        column("orientation", pa.int32(), "EXIF orientation, 1 where there is none; outside 1–8 it is not correctable"),
        column("depth", pa.int32(), "bits per sample as stored"),
        column("alpha", pa.bool_(), "has transparency, which is shown on white"),
        column("profile", pa.string(), "name of the colour profile that was converted to sRGB; empty without one"),
        column("frames", pa.int32(), "pictures in the file: frames of an animation, pages"),
        column("frame", pa.int32(), "the one taken, from 0: the first that is not blank"),
        column("jpeg_quality", pa.float64(), "estimated encoder quality, 1 to 100; null where the format is not JPEG"),
    )

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the header cannot be read."""
        return per_item(items, _one)


def _one(item: Item) -> dict[str, Any]:
    header = describe_header(item.header, item.image)
    width, height = header.size
    return {
        "format": header.format,
        "short_edge": min(width, height),
        "long_edge": max(width, height),
        "aspect": width / height,
        "bytes_per_pixel": len(item.image) / (width * height),
        "orientation": header.orientation,
        "depth": header.depth,
        "alpha": header.alpha,
        "profile": header.profile,
        "frames": header.frames,
        "frame": 0 if header.frames == 1 else describe(item.image).frame,
        "jpeg_quality": jpeg_quality(item.header),
    }


def jpeg_quality(image: Image.Image) -> float | None:
    """Encoder quality, 1 to 100, whose standard luminance table has the nearest sum; None without a table."""
    tables = getattr(image, "quantization", None)
    if not tables:
        return None
    return _nearest_quality(sum(tables[min(tables)]))


@cache
def _nearest_quality(total: int) -> float:
    """Quality with the nearest table sum; the higher one of a tie."""
    return float(min(range(1, 101), key=lambda quality: (abs(_table_sum(quality) - total), -quality)))


@cache
def _table_sum(quality: int) -> int:
    """Sum of the luminance table that libjpeg uses for a quality."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return sum(min(255, max(1, (v * scale + 50) // 100)) for v in _LUMINANCE)
