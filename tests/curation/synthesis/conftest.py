"""Photographs to edit."""

from __future__ import annotations

import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from tests.curation.corpus import encoded


@pytest.fixture(scope="module")
def photographs() -> tuple[bytes, bytes]:
    """A flower, and a Chinese temple."""
    temple, flower = (Image.fromarray(pixels).resize((320, 214)) for pixels in load_sample_images().images)
    return encoded(flower, "JPEG", quality=95), encoded(temple, "JPEG", quality=95)
