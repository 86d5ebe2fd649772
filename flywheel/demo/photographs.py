"""Photographs that come with dependencies, cropped into a small set of ordinary images."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from importlib import util
from pathlib import Path

from PIL import Image

from flywheel.core.errors import UsageError
from flywheel.core.image import decode

# package, file in it, what the photograph shows
SOURCES = (
    ("sklearn", "datasets/images/china.jpg", "a Chinese pavilion with a curved tiled roof"),
    ("sklearn", "datasets/images/flower.jpg", "an orange dahlia in bloom"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "a portrait of an officer in a dark uniform"),
)
SIDES = (128, 160, 200, 256, 320)  # pixels, long side of a crop
RATIOS = ((1, 1), (4, 3), (3, 4), (16, 9))


@lru_cache(maxsize=len(SOURCES))
def photograph(package: str, inside: str) -> Image.Image:
    """RGB image from an installed package. Errors: `UsageError` if the package does not contain it."""
    spec = util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, inside)
        if path.is_file():
            return decode(path.read_bytes())
    raise UsageError(f"{inside} is not in the installed package {package!r}: install the pinned version of it")


def crops(count: int, *, seed: str) -> Iterator[tuple[Image.Image, str]]:
    """`count` (crop, caption) pairs of different places, sizes and aspect ratios."""
    rng = random.Random(seed)
    for i in range(count):
        package, inside, what = SOURCES[i % len(SOURCES)]
        photo = photograph(package, inside)
        wide, high = rng.choice(RATIOS)
        largest = min(photo.width / wide, photo.height / high)
        scale = largest * rng.uniform(0.4, 0.95)
        width, height = round(wide * scale), round(high * scale)
        left, top = rng.randint(0, photo.width - width), rng.randint(0, photo.height - height)
        crop = photo.crop((left, top, left + width, top + height))
        crop.thumbnail((side := rng.choice(SIDES), side), Image.Resampling.LANCZOS)
        yield crop, rng.choice((f"a photograph of {what}", f"a photo, cropped, of {what}", f"{what}, photographed"))
