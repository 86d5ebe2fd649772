"""Everything the header says, without decoding a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from PIL import Image

from curation.orientation import exif_orientation, upright_size
from flywheel.schema import column
from flywheel.scorer import Item, per_item

# Sum of the luminance table of ITU-T T.81, annex K.1: quality 50 of the common JPEG encoders.
_LUMINANCE_SUM = 3_688


class Header:
    """Format, size, EXIF orientation, bytes per pixel, and the JPEG quality that the quantisation table tells."""

    name = "header"
    version = "1"
    fields = (
        column("format", pa.string(), "container format as PIL names it: JPEG, PNG, WEBP, …"),
        column("short_edge", pa.int32(), "pixels, shorter side, upright"),
        column("long_edge", pa.int32(), "pixels, longer side, upright"),
        column("aspect", pa.float64(), "width / height, upright"),
        column("bytes_per_pixel", pa.float64(), "encoded bytes per pixel"),
        column("orientation", pa.int32(), "EXIF orientation, 1 where there is none; outside 1–8 it is not correctable"),
        column("jpeg_quality", pa.float64(), "estimated encoder quality, 1 to 100; null where the format is not JPEG"),
    )

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the header cannot be read."""
        return per_item(items, _one)


def _one(item: Item) -> dict[str, Any]:
    image = item.header
    width, height = upright_size(image)
    return {
        "format": image.format,
        "short_edge": min(width, height),
        "long_edge": max(width, height),
        "aspect": width / height,
        "bytes_per_pixel": len(item.image) / (width * height),
        "orientation": exif_orientation(image),
        "jpeg_quality": jpeg_quality(image),
    }


def jpeg_quality(image: Image.Image) -> float | None:
    """Quality setting that scales the standard luminance table to the sum of this image's; None without a table."""
    tables = getattr(image, "quantization", None)
    if not tables:
        return None
    scale = 100 * sum(tables[min(tables)]) / _LUMINANCE_SUM
    quality = 5000 / scale if scale > 100 else (200 - scale) / 2
    return min(100.0, max(1.0, quality))
