"""The threshold of a filter, as the benchmarks of filters choose it."""

from __future__ import annotations

import math

import numpy as np

PRECISION = 0.98  # least precision of a chosen threshold


def threshold(clean: np.ndarray, defect: np.ndarray) -> float:
    """The bound of required precision above which most defects and fewest clean values lie, in the widest gap.

    Scores are scales, such as a variance, so the middle of a gap is its geometric mean unless the gap spans zero.
    """
    levels = np.unique(np.concatenate([clean, defect]))
    best, bound = (-1.0, 0.0), math.inf
    for low, high in zip(levels[:-1], levels[1:]):
        caught, wrong = (defect > low).sum(), (clean > low).sum()
        if not caught or caught / (caught + wrong) < PRECISION:
            continue
        if (score := (caught / len(defect) - wrong / len(clean), high - low)) > best:
            best = score
            bound = math.copysign(math.sqrt(low * high), low) if low * high > 0 else (low + high) / 2
    return bound
