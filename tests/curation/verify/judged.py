"""Judge one picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from curation.verify.checks import verify
from flywheel.core.scorer import Item


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def judged(image, *checks, references=(), scorers=None):
    return verify([Item(image=image, references=references)], [checks], scorers=scorers)[0]
