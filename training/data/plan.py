"""Which rows make global batch t: a pure function of (shard manifests, recipe numbers, seed). Its only state is t.

Step → bucket → task → source → row, each level an exact split: the first g items of a level give ⌊g·share⌋ to its
first member, so quotas hold over every window up to rounding, and any step can be computed without the earlier ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict, Unpack

import numpy as np

from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.records import Manifest
from flywheel.core.schema import ROW_GROUP, TASKS, slice_column
from flywheel.core.storage import located
from training.data import files
from training.data.cell import Cell, UsableRows
from training.data.weights import least_weight, row_weights
from training.randomness import generator


class ShardError(UsageError):
    """A shard is missing, does not match its manifest, or holds a row that cannot be read; the message names it."""


@dataclass(frozen=True, kw_only=True)
class MixSource:
    """One entry of a training mix: rows of a shard manifest (local, or s3://…), and their share of the batches.

    `slice`: only rows of this slice, `base` or a capability.
    """

    manifest: Path | str
    share: float = 1.0
    slice: str | None = None


@dataclass(frozen=True)
class Shard:
    """A file of a manifest. `shape`: (height, width, references) of its rows, pixels as stored.

    `least_weight`: smallest weight of a row that is drawn, in all files read; 0 if the stages trained on draw rows
    evenly. `weights`: (group, weight) of the rows; None for a shard whose rows have a column `weight`.
    """

    path: Path
    sha256: str
    bytes: int
    rows: int
    bucket: int
    task: str
    shape: tuple[int, int, int]
    least_weight: float = 0.0
    weights: tuple[tuple[str, float], ...] | None = None


def trained_size(shard: Shard, resolution: Mapping[int, int], unit: int) -> tuple[int, int]:
    """(height, width) in pixels at which the shard's rows are trained: a bucket's own, or scaled from it.

    resolution: pixels by bucket; sides that are scaled, or that do not fit, become the nearest multiples of `unit`,
    pixels of one latent pixel.
    """
    height, width, _ = shard.shape
    pixels = resolution.get(shard.bucket, shard.bucket)
    if pixels == shard.bucket and height % unit == 0 and width % unit == 0:
        return height, width
    scaled = (max(1, round(side * pixels / shard.bucket / unit)) * unit for side in (height, width))
    return next(scaled), next(scaled)


class Row(NamedTuple):
    """One drawn row. `slot` counts draws of its bucket over the whole run: the key of the row's randomness."""

    shard: int
    group: int
    row: int
    bucket: int
    slot: int


def split(low: int, high: int, weights: Sequence[Fraction]) -> list[tuple[int, int]]:
    """Split items [low, high) of an endless sequence by weights that sum to 1: per member, its own [low, high).

    The first g items hold ⌊g·weight⌋ of the first member, and so on down the rest: exact, without state.
    """
    ranges, left = [], Fraction(1)
    for weight in weights[:-1]:
        part = weight / left if left else Fraction(0)
        a, b = int(low * part), int(high * part)
        ranges.append((a, b))
        low, high, left = low - a, high - b, left - weight
    return [*ranges, (low, high)]


def normalised(weights: Sequence[float | Fraction]) -> list[Fraction]:
    """Exact fractions that sum to 1. Errors: `ValueError` for negative weights or a zero sum."""
    exact = [Fraction(str(w)) for w in weights]
    if min(exact) < 0 or not sum(exact):
        raise ValueError(f"shares must be positive: {list(weights)}")
    return [w / sum(exact) for w in exact]


class PlanSettings(TypedDict):
    """What decides the order of all batches, beside the data: see `DataPlan`."""

    batch: Mapping[int, int]
    t2i_share: float
    seed: int
    stages: Sequence[str]
    window: int


class DataPlan:
    """The order of all batches. `digest` identifies it: a checkpoint of another plan must not be resumed.

    `batch`: rows per global batch by bucket; only these buckets are read. `t2i_share`: share of T2I rows, the rest is
    TI2I. `notes`: one line for each share that the data cannot give. `on_error`: "raise", or "skip" for unreadable
    files; the order of the batches stays the same. Errors: `ShardError`, `UsageError`.
    """

    def __init__(
        self,
        mix: Sequence[MixSource],
        *,
        batch: Mapping[int, int],
        t2i_share: float,
        seed: int,
        stages: Sequence[str] = (),
        window: int = 8,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        self.on_error = on_error
        self.batch_rows = dict(sorted(batch.items()))
        self.digest = plan_digest(mix, batch=batch, t2i_share=t2i_share, seed=seed, stages=stages, window=window)
        self.shards: list[Shard] = []
        self.notes: list[str] = []
        self.seed = seed
        self._held_out: list[tuple[int, int, int]] = []
        cells: dict[tuple[int, str, int], list[UsableRows]] = {}
        for number, source in enumerate(mix):
            for shard in read_manifest(source.manifest, stages, check=on_error == "raise"):
                if shard.bucket in self.batch_rows:
                    self.shards.append(shard)
                    groups = cells.setdefault((shard.bucket, shard.task, number), [])
                    groups += self._groups(len(self.shards) - 1, source.slice)
                else:
                    self._note(f"bucket {shard.bucket} of {source.manifest} is not read: no batch size for it")
        filled = {key: groups for key, groups in cells.items() if sum(g.draws for g in groups)}
        if not filled:
            raise UsageError(
                f"no training rows for {', '.join(stages) or 'any stage'} and buckets "
                f"{', '.join(map(str, self.batch_rows))} in {', '.join(str(s.manifest) for s in mix)}: "
                "admit more data or train other stages"
            )
        self._cells = {
            key: Cell(
                groups,
                [self.shards[g.shard].shape for g in groups],
                (seed, *stages, *key),
                window,
                self.batch_rows[key[0]],
            )
            for key, groups in filled.items()
        }
        self._buckets = sorted({key[0] for key in filled})
        steps = [sum(c.rows for k, c in self._cells.items() if k[0] == b) / self.batch_rows[b] for b in self._buckets]
        self._bucket_weights = normalised(steps)  # epochs of all buckets take the same number of steps
        missing: dict[tuple[int, str], list[int]] = {}
        self._split = {b: self._cell_weights(mix, b, t2i_share, missing) for b in self._buckets}
        lacking: dict[tuple[str, str, tuple[int, ...]], list[str]] = {}
        for (number, task), buckets in missing.items():
            source = mix[number]
            lacking.setdefault((str(source.manifest), task, tuple(buckets)), []).append(source.slice or "")
        for (manifest, task, where), slices in lacking.items():
            self._note(_lack(manifest, slices, task, () if list(where) == self._buckets else where))

    @property
    def rows(self) -> int:
        """Distinct training rows."""
        return sum(cell.rows for cell in self._cells.values())

    def batch(self, t: int) -> list[list[Row]]:
        """Global batch t ≥ 0 as micro-batches, each of one layout."""
        ranges = split(t, t + 1, self._bucket_weights)
        bucket, index = next((b, low) for b, (low, high) in zip(self._buckets, ranges, strict=True) if high > low)
        size = self.batch_rows[bucket]
        rows = []
        cells, weights = self._split[bucket]
        for cell, (low, high) in zip(cells, split(index * size, (index + 1) * size, weights), strict=True):
            rows += cell.take(low, high)
        layouts: dict[tuple, list[Row]] = {}
        for slot, (shard, group, row) in enumerate(rows, start=index * size):
            layouts.setdefault(self.shards[shard].shape, []).append(Row(shard, group, row, bucket, slot))
        return list(layouts.values())

    def validation(self, count: int) -> list[list[Row]]:
        """Up to `count` held-out rows as micro-batches; no batch ever holds them. Empty for very small data."""
        order = generator(self.seed, "validation").permutation(len(self._held_out))[:count]
        layouts: dict[tuple, list[Row]] = {}
        for slot, i in enumerate(order):
            shard, group, row = self._held_out[i]
            file = self.shards[shard]
            layouts.setdefault(file.shape, []).append(Row(shard, group, row, file.bucket, slot))
        return list(layouts.values())

    def sample(self, count: int) -> list[Row]:
        """`count` rows spread evenly over all cells, to fit an autoencoder on."""
        share = -(-count // len(self._cells))
        rows = [
            Row(*item, key[0], 0) for key, cell in self._cells.items() for item in cell.take(0, min(share, cell.rows))
        ]
        return rows[:count]

    def _groups(self, number: int, slice_: str | None) -> list[UsableRows]:
        """The shard's row groups with their usable rows. A full group's last row is held out for validation."""
        shard, groups = self.shards[number], []
        try:
            matching = None if slice_ is None else _rows_of_slice(shard, slice_)
            weights = row_weights(shard.path, shard.weights) if shard.least_weight else None
        except files.READ_ERRORS as error:
            if self.on_error == "raise":
                raise ShardError(f"shard {shard.path}: {error}: build the shards again") from error
            self._note(f"shard {shard.path} cannot be read, none of its {shard.rows} rows are used: {error}")
            return []
        for index in range(-(-shard.rows // ROW_GROUP)):
            size = min(ROW_GROUP, shard.rows - index * ROW_GROUP)
            rows = _first_rows(size) if matching is None else matching[index]
            if len(rows) == ROW_GROUP:
                self._held_out.append((number, index, int(rows[-1])))
                rows = rows[:-1]
            group = UsableRows(number, index, rows)
            if weights is not None:
                draw = generator(self.seed, "weight", number, index).random(len(rows))
                times = (weights[index][rows] / shard.least_weight + draw).astype(np.int64)
                group = UsableRows.repeated(number, index, rows, times)
            if group.draws:
                groups.append(group)
        return groups

    def _cell_weights(
        self, mix: Sequence[MixSource], bucket: int, t2i_share: float, missing: dict[tuple[int, str], list[int]]
    ) -> tuple[list[Cell], list[Fraction]]:
        """Cells of a bucket with their exact shares; the share of an empty cell goes to its neighbours.

        missing: gets the bucket, by (source, task), of each empty cell that has a share.
        """
        tasks = {"t2i": Fraction(str(t2i_share)), "ti2i": 1 - Fraction(str(t2i_share))}
        present = [t for t in TASKS if any(k[:2] == (bucket, t) for k in self._cells)]
        for task in TASKS:
            if task not in present and tasks[task]:
                self._note(f"bucket {bucket} has no {task} rows: their share {float(tasks[task]):g} goes elsewhere")
        shares = [tasks[t] for t in present]
        cells, weights = [], []
        for task, share in zip(present, normalised(shares if sum(shares) else [1] * len(present)), strict=True):
            keys = [k for k in self._cells if k[:2] == (bucket, task)]
            for number, source in enumerate(mix):
                if (bucket, task, number) not in keys and source.share and share:
                    missing.setdefault((number, task), []).append(bucket)
            source_shares = [mix[k[2]].share for k in keys]
            cells += [self._cells[k] for k in keys]
            weights += [share * w for w in normalised(source_shares if sum(source_shares) else [1] * len(keys))]
        return cells, weights

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)


def _lack(manifest: str, slices: Sequence[str], task: str, buckets: Sequence[int]) -> str:
    """What is said of slices without rows of a task; buckets: empty for all that are read."""
    named = f"{', '.join(slices)} in {manifest}" if all(slices) else manifest
    where = f" in bucket {', '.join(map(str, buckets))}" if buckets else ""
    has, goes = ("has", "its share goes") if len(slices) == 1 else ("have", "their shares go")
    return f"{named} {has} no {task} rows{where}: {goes} to the others"


def plan_digest(mix: Sequence[MixSource], **settings: Unpack[PlanSettings]) -> str:
    """Digest of a plan: the mix and all settings; reads no shard."""
    plain = sorted((k, sorted(v.items()) if isinstance(v, Mapping) else v) for k, v in settings.items())
    return digest(mix_digest(mix), plain)


def mix_digest(mix: Sequence[MixSource]) -> str:
    """Digest of a mix: the manifests' digests, shares and slices. Errors: `ShardError`, `UsageError`."""
    sources = []
    for source in mix:
        try:
            sha256 = hashlib.sha256(files.read(located(source.manifest))).hexdigest()
        except OSError as error:
            raise ShardError(f"no shard manifest at {source.manifest} ({error}): build the shards first") from error
        sources.append([sha256, source.share, source.slice])
    if not sources:
        raise UsageError("the training mix is empty: name at least one shard manifest")
    return digest(sources)


def read_listing(manifest: Path | str) -> Manifest:
    """The manifest as it lists its files. Errors: `ShardError`."""
    path = located(manifest)
    try:
        return Manifest.of(json.loads(files.read(path)), path)
    except FileNotFoundError as error:
        raise ShardError(f"no shard manifest at {path}: build the shards first") from error
    except (ValueError, UsageError) as error:
        raise ShardError(f"{path} is not a shard manifest ({error}): build the shards again") from error


def read_manifest(manifest: Path | str, stages: Sequence[str] = (), *, check: bool = True) -> list[Shard]:
    """The manifest's files of any of `stages` (empty: all). Errors: `ShardError`.

    `check`: raise for missing files and files of another size. Rows are drawn by weight if all of `stages` are
    balanced.
    """
    path, listing = located(manifest), read_listing(manifest)
    entries = [file for file in listing.files if not stages or set(stages) & set(file.stages)]
    weighed = bool(stages) and set(stages) <= set(listing.balanced)
    least = least_weight(listing, entries) if weighed else 0.0
    if least is None:
        raise ShardError(f"no row of {path} is ever drawn, as its weights are 0: raise a quota of the policy's balance")
    shards = [
        Shard(
            path=path.parent / file.path,
            sha256=file.sha256,
            bytes=file.bytes,
            rows=file.rows,
            bucket=file.bucket,
            task=file.task,
            shape=(file.height, file.width, file.references),
            least_weight=least,
            weights=None if listing.weights is None else tuple(listing.weights.get(str(file.bucket), {}).items()),
        )
        for file in entries
    ]
    for shard, size in zip(shards, files.sizes([s.path for s in shards]), strict=True) if check else ():
        require_size(shard, size)
    return shards


def require_size(shard: Shard, size: int | None) -> None:
    """Errors: `ShardError` unless the file exists with the manifest's size."""
    if size is None:
        raise ShardError(f"shard {shard.path} is missing: build the shards again, or restore the file")
    if size != shard.bytes:
        raise ShardError(f"shard {shard.path} does not have the size listed in its manifest: build the shards again")


@lru_cache(maxsize=ROW_GROUP)
def _first_rows(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int16)


def _rows_of_slice(shard: Shard, slice_: str) -> list[np.ndarray]:
    """Numbers of a slice's rows per row group; uniform row groups are decided by their statistics."""
    import pyarrow.compute as pc

    out = []
    with files.parquet(shard.path) as file:
        name = slice_column(file.schema_arrow.names)
        column = file.schema_arrow.get_field_index(name)
        for index in range(file.num_row_groups):
            group = file.metadata.row_group(index)
            statistics = group.column(column).statistics
            if statistics is not None and statistics.has_min_max and statistics.min == statistics.max:
                count = group.num_rows if statistics.min == slice_ and not statistics.null_count else 0
                out.append(np.arange(count, dtype=np.int16))
            else:
                values = file.read_row_group(index, columns=[name])[name]
                out.append(np.flatnonzero(pc.equal(values, slice_).fill_null(False)).astype(np.int16))
    return out
