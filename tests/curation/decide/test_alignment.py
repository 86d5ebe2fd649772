"""Copies are laid on their originals to a pixel; other pictures are not laid on each other."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from curation.decide.alignment import exact, improved
from curation.decide.glimpse import proposed, stretched
from tests.curation.copied import again, scene, sketch

SIDE = 640  # pixels: long side of a scene


def _changed(image: Image.Image, change: np.ndarray) -> Image.Image:
    pixels = cv2.warpAffine(np.asarray(image), change[:2], image.size, borderMode=cv2.BORDER_REFLECT)
    return again(Image.fromarray(pixels))


def _turned(degrees: float, scale: float = 1.0) -> np.ndarray:
    return np.concatenate([cv2.getRotationMatrix2D((SIDE / 2, SIDE * 3 / 8), degrees, scale), [[0, 0, 1]]])


def _error(found: np.ndarray, change: np.ndarray, share: float) -> float:
    """Largest error inside the picture, pixels of the sketch; share: its size by the scene's."""
    x, y = np.meshgrid(np.linspace(0.2, 0.8, 5) * SIDE, np.linspace(0.2, 0.8, 5) * SIDE * 3 / 4)
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    small = np.concatenate([(points[:2] + 0.5) * share - 0.5, points[2:]])
    return float(np.abs(found @ small - ((change[:2] @ points + 0.5) * share - 0.5)).max())


MIRROR = np.array([[-1.0, 0, SIDE - 1], [0, 1, 0], [0, 0, 1]])
CHANGES = {
    "turned": _turned(5),
    "enlarged": _turned(-3, 1.12),
    "mirrored": MIRROR,
    "turned and mirrored": _turned(4) @ MIRROR,
}


@pytest.mark.parametrize("kind", CHANGES)
def test_features_lay_a_copy_on_its_original(kind: str) -> None:
    original = scene(2)
    first, second = sketch(original), sketch(_changed(original, CHANGES[kind]))
    proposal = proposed(first, second)
    assert proposal is not None and proposal.mirrors == ("mirrored" in kind)
    found = exact(first, second, proposal)
    assert found is not None and _error(found, CHANGES[kind], first.side / SIDE) < 1


def test_small_steps_reach_what_is_near() -> None:
    change = np.array([[1.0, 0, 9], [0, 1, -6], [0, 0, 1]])
    first, second = sketch(scene(4)), sketch(_changed(scene(4), change))
    whole, share = stretched(first, second), first.side / SIDE
    found = improved(first, second, whole)
    assert found is not None and _error(found, change, share) < 1 < _error(whole, change, share)


def test_other_pictures_have_no_features_in_common() -> None:
    sketches = [sketch(scene(seed)) for seed in range(4)]
    for n, first in enumerate(sketches):
        for second in sketches[:n]:
            assert exact(first, second, proposed(first, second)) is None


def test_a_flat_picture_has_no_features() -> None:
    flat = sketch(Image.new("RGB", (SIDE, SIDE), "gray"))
    assert proposed(flat, flat) is None and exact(flat, flat, None) is None and not len(flat.features.places)
