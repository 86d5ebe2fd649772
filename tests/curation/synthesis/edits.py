"""Masked edits of the photographs, and pixels of encoded pictures."""

from __future__ import annotations

import io
import random

import numpy as np
from PIL import Image

from curation.synthesis.masked import masked_edits
from curation.synthesis.sample import Sample


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)), np.int16)


def edits(kind: str, photographs: tuple[bytes, bytes], seed: int = 0) -> list[Sample]:
    flower, temple = photographs
    first, second = (temple, flower) if kind == "object" else (flower, temple)
    return list(masked_edits(kind, first, "a photo of a dahlia", second, "a photo of a dahlia", random.Random(seed)))
