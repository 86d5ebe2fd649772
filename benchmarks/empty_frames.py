"""Frames that are empty: blank, noise, black and burnt. Each is a function of a random generator and a photograph."""

from __future__ import annotations

import numpy as np
from PIL import Image

from benchmarks.graphics import SIZES, Draw, grained


def _filled(rng: np.random.Generator, low: int, high: int) -> Image.Image:
    return Image.new("RGB", SIZES[rng.integers(len(SIZES))], tuple(int(v) for v in rng.integers(low, high, 3)))


def blank(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    return _filled(rng, 0, 256)


def blank_grained(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """A wall out of focus: one colour, a little noise and shading."""
    image = _filled(rng, 60, 220)
    shade = np.linspace(1, rng.uniform(0.8, 1.0), image.width)[None, :, None]
    return grained(rng, Image.fromarray((np.asarray(image) * shade).astype(np.uint8)), rng.uniform(0.5, 5))


def noise(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    width, height = SIZES[rng.integers(len(SIZES))]
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def gray_noise(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    width, height = SIZES[rng.integers(len(SIZES))]
    return Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)).convert("RGB")


def faint_noise(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Normal noise of 12 to 60 levels around a gray."""
    return grained(rng, _filled(rng, 80, 180), rng.uniform(12, 60))


def coarse_noise(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Noise in grains of two or three pixels."""
    width, height = SIZES[rng.integers(len(SIZES))]
    grain = int(rng.integers(2, 4))
    small = rng.integers(0, 256, (height // grain, width // grain, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling(int(rng.choice([0, 2]))))


def salt_and_pepper(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    width, height = SIZES[rng.integers(len(SIZES))]
    share = rng.uniform(0.05, 0.5)
    values = np.where(rng.random((height, width)) < share, rng.integers(0, 2, (height, width)) * 255, 128)
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def black(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """A photograph with 3 to 12 % of its light."""
    return Image.fromarray((np.asarray(photo, np.float32) * rng.uniform(0.03, 0.12)).astype(np.uint8))


def black_grained(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """A lens cap: sensor noise only."""
    return grained(rng, _filled(rng, 0, 12), rng.uniform(1, 6))


def burnt(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Lifted and gained until little but white is left."""
    gained = np.asarray(photo, np.float32) * rng.uniform(4, 8) + 128
    return Image.fromarray(np.clip(gained, 0, 255).astype(np.uint8))


def burnt_gray(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """As burnt, of a photograph without colour."""
    return burnt(rng, photo.convert("L").convert("RGB"))


def burnt_pale(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Almost white everywhere: a trace of the darkest parts."""
    gained = np.asarray(photo, np.float32) * rng.uniform(1.0, 3.0) + rng.uniform(190, 230)
    return Image.fromarray(np.clip(gained, 0, 255).astype(np.uint8))


EMPTY: dict[str, Draw] = {
    f.__name__: f
    for f in (blank, blank_grained, noise, gray_noise, faint_noise, coarse_noise, salt_and_pepper, black,
              black_grained, burnt, burnt_gray, burnt_pale)
}  # fmt: skip
