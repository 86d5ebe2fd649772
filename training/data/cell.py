"""A cell of a plan: the usable rows of one bucket, task and source, in an endless sequence of shuffled epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from training.randomness import generator


@dataclass(frozen=True)
class UsableRows:
    """Usable rows of one Parquet row group. Those that are drawn more often count as many draws an epoch."""

    shard: int
    index: int
    rows: np.ndarray  # int16, row numbers inside the group
    ends: np.ndarray | None = None  # integer, per row: draws of the group up to it; None if each is drawn once

    @classmethod
    def repeated(cls, shard: int, index: int, rows: np.ndarray, times: np.ndarray) -> UsableRows:
        """times: integer, how often each row is drawn."""
        ends = np.cumsum(times[times > 0])
        return cls(shard, index, rows[times > 0], ends.astype(np.min_scalar_type(ends[-1] if len(ends) else 0)))

    @property
    def draws(self) -> int:
        """Draws an epoch."""
        return len(self.rows) if self.ends is None else int(self.ends[-1]) if len(self.ends) else 0

    def row(self, draw: int) -> int:
        """The row number of a draw."""
        place = draw if self.ends is None else int(np.searchsorted(self.ends, draw, side="right"))
        return int(self.rows.item(place))


class Cell:
    """All usable rows of one (bucket, task, source), in an endless sequence of shuffled epochs.

    Row groups are permuted, then rows inside windows of a few groups: reads stay local, memory stays small. Inside a
    window, rows come in runs of one layout, so that a batch needs few micro-batches.
    """

    def __init__(
        self, groups: Sequence[UsableRows], shapes: Sequence[tuple], key: tuple, window: int, run: int
    ) -> None:
        self.groups, self.shapes, self.key, self.window, self.run = groups, shapes, key, window, run
        self.sizes = np.array([g.draws for g in groups], dtype=np.int64)
        self.rows = int(self.sizes.sum())
        self._epoch = lru_cache(maxsize=2)(self._epoch_order)
        self._window = lru_cache(maxsize=2)(self._window_order)

    def take(self, low: int, high: int) -> list[tuple[int, int, int]]:
        """Items [low, high) of the sequence: (shard, group, row) each."""
        out = []
        while low < high:
            epoch, position = divmod(low, self.rows)
            _, ends = self._epoch(epoch)
            number = int(np.searchsorted(ends, position, side="right"))
            start = int(ends[number - 1]) if number else 0
            order = self._window(epoch, number)
            part = order[position - start : position - start + high - low].tolist()
            out += [(self.groups[g].shard, self.groups[g].index, self.groups[g].row(r)) for g, r in part]
            low += len(part)
        return out

    def _epoch_order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Group numbers in this epoch's order, and the row position at which each window ends."""
        order = generator(*self.key, "groups", epoch).permutation(len(self.groups))
        ends = np.cumsum(self.sizes[order])
        last = np.minimum(np.arange(self.window, len(order) + self.window, self.window), len(order)) - 1
        return order, ends[last]

    def _window_order(self, epoch: int, number: int) -> np.ndarray:
        """(group number, number of its draw) of one window's rows, int64 [rows, 2]."""
        order, _ = self._epoch(epoch)
        rng = generator(*self.key, "rows", epoch, number)
        members = order[number * self.window : (number + 1) * self.window]
        runs = []
        for shape in sorted({self.shapes[g] for g in members}):
            chosen = [g for g in sorted(members) if self.shapes[g] == shape]
            rows = np.concatenate([np.stack([np.full(self.sizes[g], g), np.arange(self.sizes[g])], 1) for g in chosen])
            rows = rows[rng.permutation(len(rows))]
            runs += [rows[i : i + self.run] for i in range(0, len(rows), self.run)]
        return np.concatenate([runs[i] for i in rng.permutation(len(runs))])
