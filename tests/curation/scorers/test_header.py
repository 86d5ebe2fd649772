"""Header columns of files whose header is known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageCms

from curation.scorers.header import jpeg_quality
from flywheel.core.image import open_image
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded, texture, turned
from tests.curation.scorers.examples import row_of


def test_header_is_upright_and_not_decoded() -> None:
    data = turned(texture(1, 200, 100), 6)
    row = row_of("header", Item(data[: len(data) // 2]))  # half a file: enough for a header
    assert (row["short_edge"], row["long_edge"], row["aspect"], row["orientation"]) == (100, 200, 0.5, 6)
    assert row["format"] == "JPEG"


@pytest.mark.parametrize("orientation", [9, 255])
def test_orientation_that_exif_does_not_define(orientation: int) -> None:
    assert row_of("header", Item(turned(texture(1), orientation)))["orientation"] == orientation


def test_no_orientation() -> None:
    assert row_of("header", Item(encoded(texture(1))))["orientation"] == 1
    assert row_of("header", Item(turned(texture(1), 0)))["orientation"] == 1


@pytest.mark.parametrize("quality", [15, 50, 75, 95])
def test_jpeg_quality_is_read_from_the_tables(quality: int) -> None:
    assert jpeg_quality(open_image(encoded(texture(1), "JPEG", quality=quality))) == pytest.approx(quality)
    assert jpeg_quality(open_image(encoded(texture(1)))) is None


def test_samples_profile_and_frames_are_named() -> None:
    clear, blank = texture(1, 60, 40).convert("RGBA"), Image.new("RGB", (60, 40), "black")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    row = row_of("header", Item(encoded(clear, "PNG", icc_profile=profile)))
    assert (row["depth"], row["alpha"], row["frames"], row["frame"]) == (8, True, 1, 0) and "sRGB" in row["profile"]
    pages = encoded(blank, "TIFF", save_all=True, append_images=[texture(1, 60, 40), blank])
    row = row_of("header", Item(pages))
    assert (row["alpha"], row["profile"], row["frames"], row["frame"]) == (False, "", 3, 1)
    deep = Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60))
    assert row_of("header", Item(encoded(deep)))["depth"] == 16
