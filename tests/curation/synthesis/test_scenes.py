"""Text in a photograph: perspective, light, and room for it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from curation.synthesis import scenes


def test_a_sign_takes_the_light_of_its_place() -> None:
    """Dark on the left, bright on the right: so is the sign."""
    ramp = np.tile(np.linspace(40, 220, 480, dtype=np.uint8), (360, 1))
    photo = Image.fromarray(np.dstack([ramp] * 3))
    layer = Image.new("RGBA", (400, 200), (200, 200, 200, 255))
    corners = np.array([[100, 100], [380, 100], [380, 240], [100, 240]])
    lit = np.asarray(scenes._blend(photo, layer, corners, painted=False), np.int16)[170, :, 0]
    assert lit[130] < 180 < 220 < lit[350]
