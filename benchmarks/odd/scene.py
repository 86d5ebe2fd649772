"""The scene that every odd picture is made from, and what a case is."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIDES = (120, 84)  # pixels of the scene, width and height
ORIENTATION = 0x0112  # EXIF tag


@dataclass(frozen=True)
class Case:
    """One file. judge: browser | source (`truth` is known) | tifffile | refused (it must not be read).

    why: the reason why the browser, which reads the format, is not followed.
    """

    kind: str
    name: str
    data: bytes
    judge: str = "browser"
    truth: Image.Image | None = None
    why: str = ""


def scene(seed: int = 0) -> Image.Image:
    """A picture without symmetry: soft gradients, saturated shapes, thin lines, grain."""
    width, height = SIDES
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [40 + 150 * x / width, 60 + 120 * y / height, 200 - 140 * (x + y) / (width + height)]
    picture = Image.fromarray(
        np.clip(np.stack(planes, -1) + rng.normal(0, 2, (height, width, 3)), 0, 255).astype(np.uint8)
    )
    draw = ImageDraw.Draw(picture)
    for color in ((230, 20, 30), (20, 200, 40), (30, 40, 230), (250, 220, 20), (10, 10, 10), (250, 250, 250)):
        left, top = int(rng.integers(4, width - 40)), int(rng.integers(4, height - 30))
        draw.rectangle((left, top, left + 32, top + 18), fill=color)
    draw.polygon([(2, 2), (34, 2), (2, 30)], fill=(200, 40, 160))
    return picture


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    """Bytes of a picture."""
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def alpha() -> np.ndarray:
    """Soft transparency, uint8 [H, W]: an oval, its edge a ramp."""
    width, height = SIDES
    y, x = np.mgrid[:height, :width]
    far = np.hypot((x - width / 2) / (width / 2), (y - height / 2) / (height / 2))
    return np.clip((1.05 - far) * 900, 0, 255).astype(np.uint8)


def on_white(rgb: np.ndarray, opacity: np.ndarray) -> Image.Image:
    """RGB [H, W, 3] over white."""
    share = opacity[..., None] / 255
    return Image.fromarray(np.round(rgb * share + 255 * (1 - share)).astype(np.uint8))


def tagged(picture: Image.Image, value: int) -> Image.Image:
    """A copy whose EXIF holds an orientation."""
    copy = picture.copy()
    copy.getexif()[ORIENTATION] = value
    return copy
