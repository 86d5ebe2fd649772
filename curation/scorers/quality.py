"""Image quality without a reference: BRISQUE (Mittal et al. 2012) in OpenCV, with a model loaded from files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.scorers import Unavailable
from flywheel.core.files import digest, file_digest
from flywheel.core.schema import column
from flywheel.core.scorer import Item, per_item


class Quality:
    """`model`, `range`: the two YAML files of an OpenCV BRISQUE model (opencv_contrib, quality/samples).

    Errors: `Unavailable` if a file is missing; no package ships them.
    """

    name = "quality"
    requires = ("model", "range")
    fields = (column("brisque", pa.float64(), "distortion of the working decode, 0 (none) to 100"),)

    def __init__(self, *, model: str = "", range: str = "") -> None:
        if missing := [p for p in (model, range) if not Path(p).is_file()]:
            raise Unavailable(f"quality has no model: {missing[0] or 'no file'} does not exist; set model and range")
        self.model, self.range = model, range
        self.version = f"1-{digest(*(file_digest(Path(p)) for p in (model, range)))[:12]}"

    def score(self, items: Sequence[Item]) -> list[dict[str, Any] | Exception]:
        """One row per item; `BadImage` where the picture cannot be decoded to its end."""
        return per_item(items, self._one)

    def _one(self, item: Item) -> dict[str, Any]:
        bgr = np.ascontiguousarray(item.pixels[:, :, ::-1])
        return {"brisque": float(_network(self.model, self.range).compute(bgr)[0])}


@lru_cache(maxsize=2)
def _network(model: str, range_: str) -> Any:
    import cv2

    return cv2.quality.QualityBRISQUE.create(model, range_)
