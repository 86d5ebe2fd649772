"""Colour thumbnails of many rows, in a temporary file: in memory is only what tells most of them apart."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

import numpy as np

_MIX = np.uint64(0x9E3779B97F4A7C15)
_MEANS = 12  # numbers of a row's summary
_BLOCK = 1 << 17  # rows, or pairs of them, that are read at a time
_GAP = 256  # rows between two wanted ones that are read too, rather than passed over


class Thumbnails:
    """Thumbnails of `count` rows, uint8 [N, K], of `width` bytes each; 20 bytes of each row are in memory.

    digests: uint64 [N], equal for equal thumbnails. means: uint8 [N, 12 or fewer], of neighbouring values: no further
    apart than the thumbnails are.
    """

    def __init__(self, count: int, width: int) -> None:
        self._file = tempfile.TemporaryFile(prefix="flywheel-")  # noqa: SIM115 - closed with the object
        self.width = width
        self._cuts = np.linspace(0, width, min(_MEANS, width) + 1).astype(int)
        self.digests = np.zeros(count, np.uint64)
        self.means = np.zeros((count, len(self._cuts) - 1), np.uint8)

    def __len__(self) -> int:
        return len(self.digests)

    @classmethod
    def of(cls, values: np.ndarray) -> Thumbnails:
        """Thumbnails that are in memory: uint8 [N, K]."""
        made = cls(*values.shape)
        for start in range(0, len(values), _BLOCK):
            made.write(start, values[start : start + _BLOCK])
        return made

    def write(self, first: int, values: np.ndarray) -> None:
        """The thumbnails of the rows from `first` on: uint8 [M, K]."""
        self._file.seek(first * self.width)
        self._file.write(np.ascontiguousarray(values).data)
        rows = slice(first, first + len(values))
        self.digests[rows] = _folded(values)
        for n, (start, end) in enumerate(zip(self._cuts, self._cuts[1:])):
            self.means[rows, n] = values[:, start:end].mean(axis=1, dtype=np.float32)

    def equal(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Which pairs of rows have equal thumbnails: bool [M]."""
        same = self.digests[a] == self.digests[b]
        same[same] = self._apart(a[same], b[same]) == 0
        return same

    def may_be_near(self, a: np.ndarray, b: np.ndarray, levels: int) -> np.ndarray:
        """Which pairs may differ by so many levels at most, and all that do: bool [M]. Reads no file."""
        if levels >= 255 or not self.width:
            return np.ones(len(a), bool)
        apart = np.abs(self.means[a].astype(np.int16) - self.means[b].astype(np.int16)).max(axis=1, initial=0)
        return np.asarray(apart <= levels)  # of numbers that differ by less than a whole one, the floors do too

    def near(self, a: np.ndarray, b: np.ndarray, levels: int) -> np.ndarray:
        """Which pairs of rows differ by so many levels at most, everywhere: bool [M]."""
        if levels >= 255 or not self.width:
            return np.ones(len(a), bool)
        return self._apart(a, b) <= levels

    def _apart(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Greatest difference of each pair, levels. Reads the file once for each 131,072 pairs."""
        out = np.zeros(len(a), np.uint8)
        for start in range(0, len(a), _BLOCK):
            part = slice(start, start + _BLOCK)
            rows, places = np.unique(np.stack([a[part], b[part]]), return_inverse=True)
            values = self.read(rows)
            one, two = (values[at] for at in places.reshape(2, -1))
            out[part] = (np.maximum(one, two) - np.minimum(one, two)).max(axis=1, initial=0)
        return out

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Thumbnails of these rows, which ascend."""
        out = np.empty((len(rows), self.width), np.uint8)
        for start, end in _runs(rows):
            first, count = int(rows[start]), int(rows[end - 1] - rows[start]) + 1
            self._file.seek(first * self.width)
            data = self._file.read(count * self.width)
            out[start:end] = np.frombuffer(data, np.uint8).reshape(count, self.width)[rows[start:end] - first]
        return out


def _runs(rows: np.ndarray) -> Iterable[tuple[int, int]]:
    """(start, end) of parts of ascending rows: cut where many lie between two of them, and where a block ends."""
    cuts = np.flatnonzero((np.diff(rows) > _GAP) | (np.diff(rows // _BLOCK) > 0)) + 1
    edges = [0, *cuts.tolist(), len(rows)] if len(rows) else [0]
    return zip(edges, edges[1:])


def _folded(values: np.ndarray) -> np.ndarray:
    """One 64-bit number for the bytes of each row."""
    out = np.zeros(len(values), np.uint64)
    for start in range(0, values.shape[1], 8):
        word = np.zeros((len(values), 8), np.uint8)
        part = values[:, start : start + 8]
        word[:, : part.shape[1]] = part
        out = (out ^ word.view(np.uint64).ravel()) * _MIX
        out ^= out >> np.uint64(29)
    return out
