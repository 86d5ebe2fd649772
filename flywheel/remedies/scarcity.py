"""Is a category scarce? The pool's density around its cases, against the pool's own distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from flywheel.remedies.index import CaptionIndex


@dataclass(frozen=True)
class Scarcity:
    """Density percentiles, 0–100, of a category's case prompts among the pool's own captions."""

    cases: int
    median: float
    sparse: int  # cases below the limit
    limit: float
    scarce: bool  # at least half of the cases are sparse

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def diagnose(index: CaptionIndex, prompts: Sequence[str], *, neighbours: int, limit: float) -> Scarcity:
    """How dense the pool is around a category's prompts; `limit` is the percentile below which it is sparse."""
    found = np.asarray(index.density(prompts, neighbours), dtype=float)
    sparse = int((found < limit).sum())
    return Scarcity(len(found), float(np.median(found)), sparse, limit, 2 * sparse >= len(found))
