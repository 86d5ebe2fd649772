"""Augmentation: a slight change of zoom and exposure, the same for target and references."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image, ImageEnhance

ZOOM = 0.06  # largest share of a side that is cropped
EXPOSURE = 0.06  # largest relative change of brightness


def augment(rows: Sequence[dict[str, Any]], *, seed: str) -> Iterator[dict[str, Any]]:
    """Vary shard rows, again and again: an endless stream unless `rows` is empty. Deterministic by seed."""
    turn = 0
    while rows:
        for row in rows:
            rng = random.Random(f"{seed}/{row['sample_id']}/{turn}")
            zoom, gain = 1 - rng.uniform(0.01, ZOOM), 1 + rng.uniform(-EXPOSURE, EXPOSURE)
            shift = rng.random(), rng.random()
            image, *references = (_vary(b, zoom, gain, shift) for b in (row["image"], *row["references"]))
            yield row | {"image": image, "references": references}
        turn += 1


def _vary(image: bytes, zoom: float, gain: float, shift: tuple[float, float]) -> bytes:
    from curation.synthesis.canvas import encode
    from flywheel.core.image import decode

    picture = decode(image)
    width, height = (round(side * zoom) for side in picture.size)
    left, top = (round(s * (full - part)) for s, full, part in zip(shift, picture.size, (width, height)))
    cut = picture.crop((left, top, left + width, top + height)).resize(picture.size, Image.Resampling.LANCZOS)
    return encode(ImageEnhance.Brightness(cut).enhance(gain))
