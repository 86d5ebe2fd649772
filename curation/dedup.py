"""Duplicates: equal ids, then pictures that agree in perceptual hash and in colour. Pure numpy, near-linear time.

The survivor is chosen by a stated total order, so the result does not depend on the order of the input: a row is
dropped when a better row that survives is within both tolerances, and names the best such row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

HASH_BITS = 64


def preference(
    pixels: np.ndarray,
    sharpness: np.ndarray,
    ids: np.ndarray,
    uris: np.ndarray,
    sound: np.ndarray,
    fixed: np.ndarray,
) -> np.ndarray:
    """Row numbers, best first: fixed rows, then sound ones, most pixels, sharpest, smallest id, smallest uri.

    sound: bool [N], rows that no later filter drops; else a picture could be lost with a twin that is dropped anyway.
    """
    return np.lexsort((uris, ids, -sharpness, -pixels.astype(np.int64), ~sound, ~fixed))


def duplicates(
    order: np.ndarray,
    hashes: np.ndarray,
    colours: np.ndarray,
    groups: np.ndarray,
    fixed: np.ndarray,
    *,
    hamming: int,
    colour: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(survivor row or −1, Hamming distance to it) of each row.

    order: row numbers, best first. hashes: uint64 [N]. colours: uint8 [N, K], thumbnails. groups: integer [N]; only
    rows of one group are compared. fixed: bool [N], rows that are never dropped (they only push others out).
    """
    n = len(order)
    survivor, distance = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    leader = _collapse(order, hashes, colours, groups)
    unique = order[leader[order] == order]  # one row per distinct signature, best first
    first, second, apart = _near(hashes[unique], colours[unique], groups[unique], hamming, colour)
    dropped = np.zeros(len(unique), bool)
    for i, j, d in zip(first.tolist(), second.tolist(), apart.tolist()):
        if not dropped[i] and not dropped[j] and not fixed[unique[j]]:
            dropped[j] = True
            survivor[unique[j]], distance[unique[j]] = unique[i], d
    twins = np.flatnonzero((leader != np.arange(n)) & ~fixed)
    head = leader[twins]
    kept = survivor[head] < 0
    survivor[twins] = np.where(kept, head, survivor[head])
    distance[twins] = np.where(kept, 0, distance[head])
    return survivor, distance


def _collapse(order: np.ndarray, hashes: np.ndarray, colours: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Row → best row with exactly the same signature: a thousand blank pictures cost as much as one."""
    signature = np.empty(len(order), [("group", np.int64), ("hash", np.uint64), ("colour", f"V{colours.shape[1]}")])
    signature["group"], signature["hash"] = groups, hashes
    signature["colour"] = np.ascontiguousarray(colours).view(f"V{colours.shape[1]}").ravel()
    raw = np.ascontiguousarray(signature).view(f"V{signature.dtype.itemsize}").ravel()
    _, which = np.unique(raw, return_inverse=True)
    which = which.ravel()
    best = np.full(which.max() + 1 if len(which) else 0, -1, np.int64)
    best[which[order[::-1]]] = order[::-1]  # written last: the best
    return best[which]


def _near(
    hashes: np.ndarray, colours: np.ndarray, groups: np.ndarray, hamming: int, colour: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (i < j, sorted) within both tolerances, and their Hamming distance.

    Two hashes within r bits agree in at least one of r + 1 bands of bits, so only rows that share a band are compared.
    """
    found = [
        _verified(a, b, hashes, colours, hamming, colour)
        for band in _bands(hashes, hamming)
        for a, b in _pairs_with_equal(band, groups)
    ]
    if not found:
        none = np.empty(0, np.int64)
        return none, none, none
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[:, 0], pairs[:, 1], pairs[:, 2]


def _bands(hashes: np.ndarray, hamming: int) -> Iterator[np.ndarray]:
    edges = np.linspace(0, HASH_BITS, min(hamming, HASH_BITS - 1) + 2).round().astype(int)
    for low, high in zip(edges[:-1], edges[1:]):
        width = int(high - low)
        mask = np.uint64((1 << width) - 1)
        yield (hashes >> np.uint64(low)) & mask


def _pairs_with_equal(band: np.ndarray, groups: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Index pairs (i, j), i < j, of rows with equal band and group: neighbours at distance 1, 2, … in sorted order."""
    by = np.lexsort((np.arange(len(band)), band, groups))
    band, groups = band[by], groups[by]
    active = np.arange(len(by))
    step = 1
    while True:
        active = active[active + step < len(by)]
        active = active[(band[active] == band[active + step]) & (groups[active] == groups[active + step])]
        if not len(active):
            return
        yield by[active], by[active + step]
        step += 1


def _verified(
    a: np.ndarray, b: np.ndarray, hashes: np.ndarray, colours: np.ndarray, hamming: int, colour: int
) -> np.ndarray:
    apart = np.bitwise_count(hashes[a] ^ hashes[b]).astype(np.int64)
    close = apart <= hamming
    a, b, apart = a[close], b[close], apart[close]
    spread = np.abs(colours[a].astype(np.int16) - colours[b].astype(np.int16)).max(axis=1, initial=0)
    same = spread <= colour
    return np.stack([a[same], b[same], apart[same]], axis=1)
