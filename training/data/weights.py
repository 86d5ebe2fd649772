"""How often rows are drawn in balanced stages: the weights that a shard manifest lists, or that its rows have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from flywheel.core.records import Manifest, ShardFile
from training.data import files


def least_weight(listing: Manifest, entries: Sequence[ShardFile]) -> float | None:
    """Smallest weight of a row of these files that is drawn; 0 if none has a weight, None if no row is drawn."""
    stated = [f.least_weight for f in entries if f.least_weight is not None]
    # earlier versions state 0 of a file of which a part is drawn
    weights = (w for groups in (listing.weights or {}).values() for w in groups.values())
    drawn = [w for w in stated if w > 0] or [w for w in weights if w > 0]
    if stated and not drawn:
        # where rows have their own weights, a part may be drawn: in their proportions, whatever the least
        return 1.0 if listing.weights is None else None
    return min(drawn, default=0.0)


def row_weights(path: Path, weights: Sequence[tuple[str, float]] | None) -> list[np.ndarray]:
    """Weights of a shard's rows per row group; a row without one has weight 1.

    weights: (group, weight); None for a shard whose rows have a column `weight`.
    """
    name = "weight" if weights is None else "balance"
    with files.parquet(path) as file:
        columns = (file.read_row_group(i, columns=[name])[name] for i in range(file.num_row_groups))
        if weights is None:
            return [column.fill_null(1.0).to_numpy() for column in columns]
        return [_weights_of(column, dict(weights)) for column in columns]


def _weights_of(groups: pa.ChunkedArray, weights: Mapping[str, float]) -> np.ndarray:
    """Weights of rows of these groups."""
    codes = groups.combine_chunks().dictionary_encode()
    by_code = np.array([*(weights.get(g, 1.0) for g in codes.dictionary.to_pylist()), 1.0])
    return by_code[codes.indices.fill_null(len(codes.dictionary)).to_numpy()]
