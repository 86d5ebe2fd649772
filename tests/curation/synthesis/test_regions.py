"""Pictures without a clear subject, and edits that change nothing, are unsuitable."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from curation.synthesis.regions import blend, subject
from curation.synthesis.sample import Unsuitable
from tests.curation.corpus import texture


def test_pictures_without_a_subject_are_unsuitable(photographs: tuple[bytes, bytes]) -> None:
    for picture in (Image.new("RGB", (200, 160), (90, 120, 60)), texture(2, 200, 160)):
        with pytest.raises(Unsuitable, match="subject"):
            subject(picture)
    same = Image.new("RGB", (64, 64), (120, 120, 120))
    with pytest.raises(Unsuitable, match="changes nothing"):
        blend(same, same, np.ones((64, 64), bool))
