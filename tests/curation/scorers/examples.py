"""What tests of scorers share: the row of one item, and pictures with fine detail."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from curation.scorers import load
from flywheel.core.scorer import Item


def row_of(scorer: str, item: Item, **options: object) -> dict:
    (row,) = load(scorer, **options).score([item])
    assert isinstance(row, dict), row
    assert row.keys() == {f.name for f in load(scorer, **options).fields}
    return row


def scene(seed: int, side: int = 512) -> Image.Image:
    """Hundreds of hard-edged shapes of every size under a little grain: a spectrum like a photograph's."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (side, side), tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(picture)
    for _ in range(500):
        x, y, size = rng.integers(0, side), rng.integers(0, side), side * 0.25 * rng.random() ** 3 + 2
        draw.ellipse((x, y, x + size, y + size * 0.7), fill=tuple(rng.integers(0, 256, 3).tolist()))
    grain = rng.normal(0, 2, (side, side, 1))
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))
