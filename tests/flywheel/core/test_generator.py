"""Pictures of generators are checked where they are written."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from flywheel.core.errors import UsageError
from flywheel.core.generator import png


def test_only_rgb_of_eight_bits_is_written():
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert (np.asarray(Image.open(io.BytesIO(png(picture)))) == picture).all()
    for wrong in (picture.astype(np.float32), picture[..., 0], np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(UsageError, match="uint8 \\[H, W, 3\\]"):
            png(wrong)
