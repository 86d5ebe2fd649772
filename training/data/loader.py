"""Reads the rows of a plan: row group by row group, decoded and prepared once while it is in use."""

from __future__ import annotations

import io
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from training.data import files
from training.data.plan import Plan, Row, Shard, ShardError, require_size

if TYPE_CHECKING:
    from training.data.latents import Latents

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RowGroup:
    """Decoded rows of one layout. `images` uint8 [n, 3, H, W]; `references` uint8 [n, R or 0, 3, H, W].

    `latents`, `reference_latents`: float32 [n, C, h, w] and [n, R, C, h, w] where they were cached, not to be written
    to; `images` is empty then. `broken`: rows that cannot be read, with the reason; in their place stands the next row
    that can.
    """

    sample_ids: list[str]
    captions: list[str]
    images: Tensor
    references: Tensor
    latents: Tensor | None = None
    reference_latents: Tensor | None = None
    broken: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """What training needs of a row group: `latents` [n, C, h, w], `references` [n, R, C, h, w], text states [L, D].

    `nulls`: states without the caption, where they depend on the row (an encoder that sees the references), else empty.
    `lead`: text tokens before each reference, as the encoder lays them out; empty when all references come first.
    """

    latents: Tensor
    references: Tensor
    states: list[Tensor]
    nulls: Sequence[Tensor] = ()
    lead: tuple[int, ...] = ()

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(x.nbytes for x in (self.latents, self.references, *self.states, *self.nulls))


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one layout, gathered from prepared row groups; `rows` says where each came from.

    `skipped`: positions where another row stands in, because the drawn one cannot be read.
    """

    rows: list[Row]
    latents: Tensor
    references: Tensor
    states: list[Tensor]
    nulls: Sequence[Tensor] = ()
    lead: tuple[int, ...] = ()
    skipped: Sequence[int] = ()


class Loader:
    """Micro-batches of a plan. `prepare` must be a pure function of a row group: that makes resume exact.

    `resolution`: pixels to train at by bucket; stored images are area-resized from the bucket's size to it.
    `latents`: side-cars to read instead of targets; `reference_pixels` says whether references are decoded as well, for
    condition encoders that look at them. `cache_bytes` bounds the prepared row groups kept, whatever the data's size.
    Errors: `ShardError`; under a plan with `on_error="skip"` what cannot be read is replaced by a neighbour of the same
    layout, logged, and listed in `skipped` by (shard, row group, row).
    """

    def __init__(
        self,
        plan: Plan,
        prepare: Callable[[RowGroup], Prepared],
        *,
        resolution: Mapping[int, int],
        cache_bytes: int = 256 << 20,
        latents: Latents | None = None,
        reference_pixels: bool = True,
    ) -> None:
        self.plan, self.prepare, self.resolution, self.cache_bytes = plan, prepare, resolution, cache_bytes
        self.latents, self.reference_pixels = latents, reference_pixels
        self.skipped: dict[tuple[int, int, int], str] = {}
        self._skips = plan.on_error == "skip"
        self._cache: OrderedDict[tuple[int, int], Prepared] = OrderedDict()
        self._held = 0
        self._failed: dict[tuple[int, int], str] = {}
        self._verified: set[int] = set()
        self._open = lru_cache(maxsize=32)(self._open_shard)
        self._lock = Lock()  # files are open once, and read by this thread and the one that reads ahead
        self._reader: ThreadPoolExecutor | None = None
        self._ahead: dict[tuple[int, int], Future[RowGroup]] = {}

    def batch(self, t: int) -> list[MicroBatch]:
        """Global batch t, while the row groups of the next one are being read."""
        micro_batches = [self.gather(rows) for rows in self.plan.batch(t)]
        self.expect(self.plan.batch(t + 1))
        return micro_batches

    def expect(self, micro_batches: Sequence[Sequence[Row]]) -> None:
        """Start to read what these rows need, in a thread: the next `gather` of them finds it read."""
        wanted = dict.fromkeys((row.shard, row.group) for rows in micro_batches for row in rows)
        self._ahead = {key: task for key, task in self._ahead.items() if key in wanted}
        self._reader = self._reader or ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
        for key in wanted:
            if key not in self._cache and key not in self._failed and key not in self._ahead:
                self._ahead[key] = self._reader.submit(self.read, *key)

    def gather(self, rows: Sequence[Row]) -> MicroBatch:
        """Rows of one layout as tensors."""
        keys = [(row.shard, row.group) for row in rows]
        groups = {key: self._prepared(*key) for key in dict.fromkeys(keys)}
        places = [(groups[key], row.row) for key, row in zip(keys, rows, strict=True)]
        if None in groups.values():
            places = self._replaced(rows, places)
        first = places[0][0]
        return MicroBatch(
            list(rows),
            torch.stack([group.latents[i] for group, i in places]),
            torch.stack([group.references[i] for group, i in places])
            if first.references.shape[1]
            else first.references.new_zeros(len(rows), *first.references.shape[1:]),
            [group.states[i] for group, i in places],
            [group.nulls[i] for group, i in places if group.nulls],
            first.lead,
            [n for n, row in enumerate(rows) if row[:3] in self.skipped] if self.skipped else (),
        )

    def read(self, shard: int, group: int) -> RowGroup:
        """Read and decode one row group."""
        found = self.plan.shards[shard]
        with self._lock:
            return read_row_group(
                found,
                group,
                self.resolution.get(found.bucket, found.bucket),
                skip=self._skips,
                opened=lambda: self._open(shard),
                latents=self.latents,
                reference_pixels=self.reference_pixels,
            )

    def _prepared(self, shard: int, group: int) -> Prepared | None:
        """The row group, ready; None where it cannot be read and that is allowed."""
        key = (shard, group)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        if key in self._failed:
            return None
        task = self._ahead.pop(key, None)
        try:
            found = task.result() if task is not None else self.read(shard, group)
        except ShardError as error:
            if not self._skips:
                raise
            self._failed[key] = str(error)
            return None
        for row, why in found.broken.items():
            self._skip(shard, group, row, why)
        prepared = self.prepare(found)
        self._cache[key] = prepared
        self._held += prepared.bytes
        while self._held > self.cache_bytes and len(self._cache) > 1:
            self._held -= self._cache.popitem(last=False)[1].bytes
        return prepared

    def _replaced(
        self, rows: Sequence[Row], places: Sequence[tuple[Prepared | None, int]]
    ) -> list[tuple[Prepared, int]]:
        """Rows of the same micro-batch in place of those whose row group cannot be read."""
        usable = [place for place in places if place[0] is not None]
        if not usable:
            raise ShardError(f"no row of a micro-batch can be read: {self._failed[rows[0].shard, rows[0].group]}")
        for row, (group, _) in zip(rows, places, strict=True):
            if group is None:
                self._skip(row.shard, row.group, row.row, self._failed[row.shard, row.group])
        return [place if place[0] is not None else usable[n % len(usable)] for n, place in enumerate(places)]

    def _skip(self, shard: int, group: int, row: int, why: str) -> None:
        if (shard, group, row) not in self.skipped:
            self.skipped[shard, group, row] = why
            log.warning("skipped row %d of row group %d of %s: %s", row, group, self.plan.shards[shard].path, why)

    def _open_shard(self, shard: int) -> pq.ParquetFile:
        """The file; a local one is hashed before its first use, of a remote one only the size is checked."""
        found = self.plan.shards[shard]
        if shard not in self._verified:
            require_size(found, files.sizes([found.path])[0])
            if not files.remote(found.path) and files.sha256(found.path) != found.sha256:
                raise ShardError(f"shard {found.path} does not match its manifest's sha256: build the shards again")
            self._verified.add(shard)
        return files.parquet(found.path)


def read_row_group(
    shard: Shard,
    index: int,
    pixels: int,
    *,
    skip: bool = False,
    opened: Callable[[], pq.ParquetFile] | None = None,
    latents: Latents | None = None,
    reference_pixels: bool = True,
) -> RowGroup:
    """Rows of one row group, at `pixels` instead of the bucket's size. Errors: `ShardError` names file and row.

    With `skip`, a row that cannot be read is replaced by the next one that can, and listed in `broken`. Where `latents`
    hold all that is asked for, the shard itself is not read.
    """
    group = None if latents is None else latents.read(shard, index)
    if group is None or (shard.shape[2] and reference_pixels):
        decoded = _decoded(shard, index, pixels, opened or (lambda: files.parquet(shard.path)), targets=group is None)
        group = (
            decoded
            if group is None
            else replace(group, references=decoded.references, broken={**group.broken, **decoded.broken})
        )
    if not group.broken:
        return group
    rows = len(group.captions)
    if not skip or len(group.broken) == rows:
        number, why = next(iter(group.broken.items()))
        raise ShardError(
            f"shard {shard.path}, row group {index}, row {number}, sample {group.sample_ids[number]}: {why}: "
            "build the shards again"
        )
    order = list(range(rows))
    for number in group.broken:
        order[number] = next(i % rows for i in range(number + 1, number + rows) if i % rows not in group.broken)
    parts = {f.name: getattr(group, f.name) for f in fields(RowGroup) if f.name != "broken"}
    return RowGroup(**{name: _taken(part, order) for name, part in parts.items()}, broken=group.broken)


def _taken(part: Any, order: list[int]) -> Any:
    """Rows of a tensor or a list in another order; what holds no rows stays as it is."""
    if part is None or not len(part):
        return part
    return part[order] if isinstance(part, Tensor) else [part[i] for i in order]


def _decoded(shard: Shard, index: int, pixels: int, opened: Callable[[], pq.ParquetFile], *, targets: bool) -> RowGroup:
    """A row group's references, and its targets too; rows that cannot be decoded are listed in `broken`."""
    height, width, count = shard.shape
    decodes = ("image", "references") if targets else ("references",)
    try:
        columns = ["sample_id", "caption", *decodes]
        table = opened().read_row_group(index, columns=columns, use_threads=False)
    except files.READ_ERRORS as error:
        raise ShardError(f"shard {shard.path}, row group {index}: {error}: build the shards again") from error
    size = (width * pixels // shard.bucket, height * pixels // shard.bucket)
    rows, broken = len(table), {}
    images = np.zeros((rows if targets else 0, 3, *size[::-1]), np.uint8)
    references = np.zeros((rows, count, 3, *size[::-1]), np.uint8)
    for number, row in enumerate(table.select(decodes).to_pylist()):
        try:
            if targets:
                images[number] = _decode(row["image"], (width, height), size)
            found = [_decode(data, (width, height), size) for data in row["references"] or []]
            if len(found) != count:
                raise ValueError(f"{len(found)} references instead of {count}")
            references[number] = np.stack(found) if found else references[number]
        except (OSError, ValueError, SyntaxError, TypeError) as error:  # what PIL raises on damaged or missing images
            broken[number] = f"{error}"
    return RowGroup(
        table["sample_id"].to_pylist(),
        table["caption"].to_pylist(),
        torch.from_numpy(images),
        torch.from_numpy(references),
        broken=broken,
    )


def _decode(data: bytes, stored: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Encoded image of exactly `stored` (width, height) → uint8 [3, H, W], area-resized to `size`."""
    with Image.open(io.BytesIO(data)) as image:
        if image.size != stored:
            raise ValueError(f"image is {image.width}x{image.height}, its layout {stored[0]}x{stored[1]}")
        pixels = image.convert("RGB")
    if pixels.size != size:
        pixels = pixels.resize(size, Image.Resampling.BOX)
    return np.ascontiguousarray(np.asarray(pixels).transpose(2, 0, 1))


def to_unit(images: Tensor) -> Tensor:
    """uint8 → float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """[-1, 1] → uint8."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
