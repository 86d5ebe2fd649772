"""Pictures that show the same, by the cosine of their embeddings: exact up to a size, an inverted file beyond it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from curation.decide.dedup import Related

_EXACT = 50_000  # rows that are compared with all others; beyond, a few of the nearest cells are searched
_PROBES = 16  # cells
_BLOCK = 4096  # rows that search together


def similar(vectors: np.ndarray, groups: np.ndarray, *, cosine: float, since: int = 0) -> Related:
    """Which rows show the same. Beyond 50,000 rows approximate: a pair may be missed, none is wrong.

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
    """(row, greater row, cosine) of the near ones, a block at a time."""
    yield np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    new = unique[np.searchsorted(unique, since) :]
    if not len(new):
        return
    index = _index(np.ascontiguousarray(vectors[unique], np.float32))
    for start in range(0, len(new), _BLOCK):
        block = new[start : start + _BLOCK]
        ends, close, other = index.range_search(np.ascontiguousarray(vectors[block], np.float32), cosine)
        row, found = np.repeat(block, np.diff(ends.astype(np.int64))), unique[other]
        once = found < row  # every pair is met by its greater row
        yield found[once], row[once], np.minimum(close[once].astype(np.float64), 1.0)


def _index(vectors: np.ndarray) -> object:
    import faiss

    count, width = vectors.shape
    if count <= _EXACT:
        index = faiss.IndexFlatIP(width)
    else:
        cells = int(4 * count**0.5)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = _PROBES
        index.train(vectors[:: max(1, count // (64 * cells))])
    index.add(vectors)
    return index


def _equal(vectors: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Row → first row of its group with the same embedding: a thousand blank pictures cost as much as one."""
    seen: dict[tuple[int, bytes], int] = {}
    rows = enumerate(zip(groups.tolist(), vectors))
    return np.array([seen.setdefault((group, v.tobytes()), n) for n, (group, v) in rows], np.int64)
