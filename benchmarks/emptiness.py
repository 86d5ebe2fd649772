"""Are sound pictures with little in them kept, and empty frames caught? Bounds are chosen on every other seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.corruptors import encoded
from benchmarks.empty_frames import EMPTY
from benchmarks.graphics import SOUND, Draw
from benchmarks.thresholds import threshold
from curation.policy.policy import Filter
from curation.policy.reader import load_policy
from curation.scorers import load
from flywheel.core.scorer import Item

SCORERS = ("header", "pixels", "exposure", "structure")
# score → the side that is dropped, the empty frames that it is there for
SCORES: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "structure.edges": (-1, ("blank", "blank_grained")),
    "structure.coherence": (-1, ("noise", "gray_noise", "faint_noise", "coarse_noise", "salt_and_pepper")),
    "exposure.peak": (-1, ("black", "black_grained")),
    "exposure.burnt": (1, ("burnt", "burnt_gray", "burnt_pale")),
}
_LEAST = 256  # pixels of the short side
Row = dict[str, Any]


@dataclass(frozen=True)
class Emptiness:
    """Shares with the chosen bounds on the other seeds, the same with the policy's bounds, by kind, and the bounds."""

    graphics_kept: float
    blank_caught: float
    by_policy: tuple[float, float]
    by_kind: Mapping[str, float]  # share that falls, of the reported seeds
    bounds: Mapping[str, float]
    pictures: int  # sound ones that are reported on


def emptiness(
    photos: Sequence[Image.Image], policy: str, seeds: int = 32, kinds: Sequence[str] = (*SOUND, *EMPTY)
) -> Emptiness:
    """Draw `seeds` pictures of each kind, choose bounds on the even ones, and report the odd ones.

    Photographs of under `_LEAST` pixels are left out: the filter of resolution drops them, whatever they show.
    """
    photos = [p for p in photos if min(p.size) >= _LEAST] or photos
    scorers = [load(name) for name in SCORERS]
    rows = {kind: [_scored((SOUND | EMPTY)[kind], n, photos, scorers) for n in range(seeds)] for kind in kinds}

    def values(of: Iterable[str], score: str, sign: int) -> np.ndarray:
        judged = [r[score] for k in of for r in rows.get(k, [])[::2]]
        found = [1.0 if value is None else value for value in judged]  # not noise: all of its variance is left
        return sign * np.array(found, float)

    bounds = {
        score: sign * float(threshold(*_as_many(values(SOUND, score, sign), values(for_, score, sign))))
        for score, (sign, for_) in SCORES.items()
    }

    def empty(row: Row) -> bool:
        return any(row[s] is not None and sign * row[s] > sign * bounds[s] for s, (sign, _) in SCORES.items())

    filters = [f for f in load_policy(policy).stages[0].filters if f.score and f.score.partition(".")[0] in SCORERS]
    falls = {kind: [empty(r) for r in found[1::2]] for kind, found in rows.items()}
    dropped = {kind: [any(_stops(f, r) for f in filters) for r in found] for kind, found in rows.items()}
    return Emptiness(
        graphics_kept=1 - _share(falls, SOUND),
        blank_caught=_share(falls, EMPTY),
        by_policy=(1 - _share(dropped, SOUND), _share(dropped, EMPTY)),
        by_kind={kind: float(np.mean(v)) for kind, v in falls.items()},
        bounds=bounds,
        pictures=sum(len(found) for kind, found in falls.items() if kind in SOUND),
    )


def _as_many(clean: np.ndarray, defect: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with the defects repeated until they are as many: precision depends on what is drawn how often."""
    return clean, np.tile(defect, max(1, len(clean) // max(1, len(defect))))


def _share(falls: Mapping[str, Sequence[bool]], kinds: Mapping[str, Draw]) -> float:
    return float(np.mean([f for kind in kinds for f in falls.get(kind, ())]))


def _stops(filter_: Filter, row: Row) -> bool:
    value = row[filter_.score or ""]
    if value is None:
        return False
    return (filter_.min is not None and value < filter_.min) or (filter_.max is not None and value > filter_.max)


def _scored(draw: Draw, seed: int, photos: Sequence[Image.Image], scorers: Sequence[Any]) -> Row:
    """Columns of one picture, saved as PNG or as JPEG of some quality."""
    rng = np.random.default_rng([seed, sum(map(ord, draw.__name__))])
    image = draw(rng, photos[int(rng.integers(len(photos)))])
    data = encoded(image, "PNG") if rng.random() < 0.5 else encoded(image, quality=int(rng.integers(75, 96)))
    item, row = Item(data), Row()
    for scorer in scorers:
        (columns,) = scorer.score([item])
        if isinstance(columns, Exception):
            raise columns
        row |= {f"{scorer.name}.{key}": value for key, value in columns.items()}
    return row
