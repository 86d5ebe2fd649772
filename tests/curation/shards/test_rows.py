"""Rows of a shard file: a picture must be of the size by which its layout was chosen."""

from __future__ import annotations

import pytest
from PIL import Image

from curation.shards.rows import encoded as encoded_pictures
from flywheel.core.image import BadImage
from tests.curation.corpus import encoded, texture


@pytest.mark.parametrize("listed", [(40, 60), (60, 40)])
def test_a_row_whose_picture_is_not_of_the_listed_size_is_refused(listed: tuple[int, int]) -> None:
    """As a pool lists a turned TIFF that was ingested before orientation was read in one place."""
    exif = Image.Exif()
    exif[0x0112] = 6
    row = {"image": encoded(texture(1, 60, 40), "TIFF", exif=exif), "width": listed[0], "height": listed[1]}
    place = {"turn": 0, "reference_places": []}
    if listed == (40, 60):
        assert encoded_pictures(row, {}, place, 32, 48)["image"]
    else:
        with pytest.raises(BadImage, match="40x60 pixels, but the pool lists 60x40: ingest it again"):
            encoded_pictures(row, {}, place, 48, 32)
