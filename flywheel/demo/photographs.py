"""Photographs that ship inside dependencies, cropped into a small set of ordinary pictures."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from importlib import util
from pathlib import Path

from PIL import Image

from flywheel.core.errors import UsageError

# package, file inside it, what the whole picture shows
SOURCES = (
    ("sklearn", "datasets/images/china.jpg", "a Chinese pavilion with a curved tiled roof"),
    ("sklearn", "datasets/images/flower.jpg", "an orange dahlia in bloom"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "a portrait of an officer in a dark uniform"),
)
SIDES = (128, 160, 200, 256, 320)  # pixels, long side of a crop
RATIOS = ((1, 1), (4, 3), (3, 4), (16, 9))


@lru_cache(maxsize=len(SOURCES))
def photograph(package: str, inside: str) -> Image.Image:
    """RGB picture from an installed package. Errors: `UsageError` when the package does not carry it."""
    spec = util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, inside)
        if path.is_file():
            with Image.open(path) as image:
                return image.convert("RGB")
    raise UsageError(f"{inside} is not in the installed package {package!r}: install the pinned version of it")


def crops(count: int, *, seed: str) -> Iterator[tuple[Image.Image, str]]:
    """`count` (crop, caption) pairs of different places, sizes and aspect ratios."""
    rng = random.Random(seed)
    for i in range(count):
        package, inside, what = SOURCES[i % len(SOURCES)]
        whole = photograph(package, inside)
        wide, high = rng.choice(RATIOS)
        largest = min(whole.width / wide, whole.height / high)
        scale = largest * rng.uniform(0.4, 0.95)
        width, height = round(wide * scale), round(high * scale)
        left, top = rng.randint(0, whole.width - width), rng.randint(0, whole.height - height)
        crop = whole.crop((left, top, left + width, top + height))
        crop.thumbnail((side := rng.choice(SIDES), side), Image.Resampling.LANCZOS)
        yield crop, rng.choice((f"a photograph of {what}", f"a photo, cropped, of {what}", f"{what}, photographed"))
