"""Pictures that show the same, by the cosine of their embeddings: exact search up to a size, then an inverted file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from curation.decide.dedup import Related

if TYPE_CHECKING:
    import faiss

_EXACT = 50_000  # rows: up to here each is compared with all others; beyond, only the nearest cells are searched
_PROBES = 16  # cells searched per row
_BLOCK = 4096  # rows per search call


def similar(vectors: np.ndarray, groups: np.ndarray, *, cosine: float, since: int = 0) -> Related:
    """Which rows show the same. Approximate beyond 50,000 rows: a pair may be missed, but none is wrong.

    vectors: float32 [N, D], normalised. groups: integer [N]; only rows of one group are compared. since: rows below it
    are known already: `near` has only pairs with a row from it on.
    """
    leader = _equal(vectors, groups)
    unique = np.flatnonzero(leader == np.arange(len(leader)))
    first, second, close = (np.concatenate(part) for part in zip(*_pairs(vectors, unique, cosine, since)))
    keep = groups[first] == groups[second]
    near, close = np.stack([first[keep], second[keep]], axis=1), close[keep]
    by = np.lexsort((near[:, 1], near[:, 0]))
    twins = np.flatnonzero(leader != np.arange(len(leader)))
    rows = np.unique(np.concatenate([twins, leader[twins], near.ravel()]))
    return Related(rows, leader[rows], near[by], close[by])


def _pairs(
    vectors: np.ndarray, unique: np.ndarray, cosine: float, since: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(row, greater row, cosine) of near pairs, a block at a time."""
    yield np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    new = unique[np.searchsorted(unique, since) :]
    if not len(new):
        return
    index = _index(np.ascontiguousarray(vectors[unique], np.float32))
    for start in range(0, len(new), _BLOCK):
        block = new[start : start + _BLOCK]
        ends, close, neighbours = index.range_search(np.ascontiguousarray(vectors[block], np.float32), cosine)
        row, near = np.repeat(block, np.diff(ends.astype(np.int64))), unique[neighbours]
        once = near < row  # each pair is taken once, at its greater row
        yield near[once], row[once], np.minimum(close[once].astype(np.float64), 1.0)


def _index(vectors: np.ndarray) -> faiss.Index:
    import faiss

    count, width = vectors.shape
    index: faiss.Index = faiss.IndexFlatIP(width)
    if count > _EXACT:
        cells = int(4 * count**0.5)
        inverted = faiss.IndexIVFFlat(index, width, cells, faiss.METRIC_INNER_PRODUCT)
        inverted.nprobe = _PROBES
        inverted.train(vectors[:: max(1, count // (64 * cells))])
        index = inverted
    index.add(vectors)
    return index


def _equal(vectors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """First row of its group with the same embedding, for each row: a thousand blank pictures cost as much as one."""
    first: dict[tuple[int, bytes], int] = {}
    rows = enumerate(zip(groups.tolist(), vectors))
    return np.array([first.setdefault((group, v.tobytes()), n) for n, (group, v) in rows], np.int64)
