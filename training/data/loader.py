"""Reads the rows of a plan: row group by row group, each decoded and prepared once while in use."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Lock
from typing import NamedTuple

import pyarrow.parquet as pq
from torch import Tensor

from flywheel.core.files import file_digest
from flywheel.core.storage import remote
from training.data import files
from training.data.buffers import Buffers
from training.data.captions import UNLISTED, Caption, draw
from training.data.latents import Latents
from training.data.plan import DataPlan, Row, ShardError, require_size, trained_size
from training.data.row_group import RowGroup, read_row_group

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What training needs of a row group: `latents` [n, C, h, w], `references` [n, R, C, h, w], text states [L, D].

    `nulls`: states without the caption if they depend on the row (the encoder reads references), else empty.
    `states` is empty where the loader encodes what is drawn. `lead`: text tokens before each reference, as the encoder
    lays them out; empty when all references come first. `captions`, `choices`: as in `RowGroup`; the loader adds them.
    """

    latents: Tensor
    references: Tensor
    states: list[Tensor]
    nulls: Sequence[Tensor] = ()
    lead: tuple[int, ...] = ()
    captions: Sequence[str] = ()
    choices: Sequence[Sequence[Caption]] = ()

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(x.nbytes for x in (self.latents, self.references, *self.states, *self.nulls))


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one layout, gathered from prepared row groups; `rows` says where each came from.

    `skipped`: positions of rows that could not be read and were replaced. `kinds`: of the captions that were drawn;
    empty if there was nothing to draw.
    """

    rows: list[Row]
    latents: Tensor
    references: Tensor
    states: list[Tensor]
    nulls: Sequence[Tensor] = ()
    lead: tuple[int, ...] = ()
    skipped: Sequence[int] = ()
    kinds: Sequence[str] = ()


@dataclass(frozen=True)
class Texts:
    """Text states of a row group: `states`, `nulls` and `lead` of `Prepared`."""

    states: list[Tensor]
    nulls: Sequence[Tensor] = ()
    lead: tuple[int, ...] = ()


class _Read(NamedTuple):
    """A row group, decoded, with its text states where the loader computes them."""

    rows: RowGroup
    texts: Texts | None


_Group = Prepared | Future[_Read] | None


class Loader:
    """Micro-batches of a plan. `prepare` must be a pure function of a row group, so that resume is exact.

    `resolution`, `unit`: see `trained_size`; stored images are area-resized to that.
    `latents`: side-cars to read instead of targets; `reference_pixels` says whether references are decoded as well, for
    condition encoders that read them. `cache_bytes` bounds the prepared row groups kept in memory.
    `texts`: text states of a row group, in place of those of `prepare`. `encode`: texts → their states, of the captions
    that are drawn and that a row group has no states of; it is called from two threads, and keeps what it gave. Both
    work ahead, while the batch before is trained on. `caption_shares`: kind → share, of captions of pictures that have
    several: a row's is drawn anew each time that it comes, as a function of (seed, bucket, slot).
    Errors: `ShardError`; under a plan with `on_error="skip"` unreadable rows are replaced by neighbours of the same
    layout, logged, and listed in `skipped` by (shard, row group, row).
    """

    def __init__(
        self,
        plan: DataPlan,
        prepare: Callable[[RowGroup], Prepared],
        *,
        resolution: Mapping[int, int],
        unit: int = 8,
        cache_bytes: int = 256 << 20,
        latents: Latents | None = None,
        reference_pixels: bool = True,
        texts: Callable[[RowGroup], Texts] | None = None,
        caption_shares: Mapping[str, float] | None = None,
        encode: Callable[[Sequence[str]], list[Tensor]] | None = None,
    ) -> None:
        self.plan, self.prepare, self.resolution, self.cache_bytes = plan, prepare, resolution, cache_bytes
        self.unit, self.latents, self.reference_pixels = unit, latents, reference_pixels
        self.texts, self.caption_shares, self.encode = texts, dict(caption_shares or {}), encode
        self.skipped: dict[tuple[int, int, int], str] = {}
        self._skips = plan.on_error == "skip"
        self._cache: OrderedDict[tuple[int, int], Prepared] = OrderedDict()
        self._held = 0
        self._buffers = Buffers()
        self._failed: dict[tuple[int, int], str] = {}
        self._verified: set[int] = set()
        self._open = lru_cache(maxsize=32)(self._open_shard)
        self._lock = Lock()  # files are open once, and read by this thread and the one that reads ahead
        self._reader: ThreadPoolExecutor | None = None
        self._ahead: dict[tuple[int, int], Future[_Read]] = {}

    def batch(self, t: int) -> list[MicroBatch]:
        """Global batch t, while the row groups of the next one are being read."""
        micro_batches = [self.gather(rows) for rows in self.plan.batch(t)]
        self.expect(self.plan.batch(t + 1))
        return micro_batches

    def expect(self, micro_batches: Sequence[Sequence[Row]]) -> None:
        """Start reading the row groups of these rows in a thread, and their texts, for the next `gather`."""
        wanted = dict.fromkeys((row.shard, row.group) for rows in micro_batches for row in rows)
        self._ahead = {key: task for key, task in self._ahead.items() if key in wanted}
        self._reader = self._reader or ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
        for key in wanted:
            if key not in self._cache and key not in self._failed and key not in self._ahead:
                self._ahead[key] = self._reader.submit(self._read, *key)
        for rows in micro_batches if self.encode else ():
            groups = {k: self._cache.get(k) or self._ahead.get(k) for k in {(row.shard, row.group) for row in rows}}
            self._reader.submit(self._encode_ahead, rows, groups)

    def gather(self, rows: Sequence[Row]) -> MicroBatch:
        """Rows of one layout as tensors."""
        places = self._places(rows)
        first = places[0][0]
        states, kinds = self._drawn(rows, places)
        return MicroBatch(
            list(rows),
            self._buffers.stack([group.latents[i] for group, i in places]),
            self._buffers.stack([group.references[i] for group, i in places])
            if first.references.shape[1]
            else first.references.new_zeros(len(rows), *first.references.shape[1:]),
            states,
            [group.nulls[i] for group, i in places if group.nulls],
            first.lead,
            [n for n, row in enumerate(rows) if row[:3] in self.skipped] if self.skipped else (),
            kinds,
        )

    def _drawn(self, rows: Sequence[Row], places: Sequence[tuple[Prepared, int]]) -> tuple[list[Tensor], Sequence[str]]:
        """Text state, and kind where there is a choice, of the caption that each row trains with now."""
        drawn = [self._draw(group, row._replace(row=i)) for row, (group, i) in zip(rows, places, strict=True)]
        states = [group.states[i] if group.states else None for group, i in places]
        wanted = [n for n, (group, i) in enumerate(places) if states[n] is None or drawn[n].text != group.captions[i]]
        if wanted and self.encode is not None:
            for n, state in zip(wanted, self.encode([drawn[n].text for n in wanted]), strict=True):
                states[n] = state
        chosen = self.caption_shares and all(group.choices for group, _ in places)
        return [s for s in states if s is not None], [c.kind for c in drawn] if chosen else ()

    def _draw(self, group: Prepared | RowGroup, row: Row) -> Caption:
        """The caption that a row of the group trains with now."""
        if not self.caption_shares or not group.choices:
            return Caption(UNLISTED, group.captions[row.row])
        return draw(group.choices[row.row], self.caption_shares, self.plan.seed, "caption", row.bucket, row.slot)

    def _encode_ahead(self, rows: Sequence[Row], groups: Mapping[tuple[int, int], _Group]) -> None:
        """Have the captions that these rows draw in the cache of `encode`. groups: those prepared, or being read."""
        wanted = []
        for row in rows:
            group = groups[row.shard, row.group]
            if isinstance(group, Future):
                read, texts = group.result()
                mine, known = self._draw(read, row).text, read.captions[row.row] if texts and texts.states else None
            elif group:
                mine, known = self._draw(group, row).text, group.captions[row.row] if group.states else None
            else:
                continue
            if mine != known:
                wanted.append(mine)
        if wanted and self.encode is not None:
            self.encode(wanted)

    def read(self, shard: int, group: int) -> RowGroup:
        """Read and decode one row group."""
        file = self.plan.shards[shard]
        with self._lock:
            return read_row_group(
                file,
                group,
                trained_size(file, self.resolution, self.unit),
                skip=self._skips,
                opened=lambda: self._open(shard),
                cached=self.latents.read(file, group) if self.latents is not None else None,
                reference_pixels=self.reference_pixels,
                empty=self._buffers.empty,
            )

    def _read(self, shard: int, group: int) -> _Read:
        rows = self.read(shard, group)
        return _Read(rows, self.texts(rows) if self.texts else None)

    def _prepared(self, shard: int, group: int) -> Prepared | None:
        """The prepared row group; None if it cannot be read and the plan skips such rows."""
        key = (shard, group)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        if key in self._failed:
            return None
        task = self._ahead.pop(key, None)
        try:
            read = task.result() if task is not None else self._read(shard, group)
        except ShardError as error:
            if not self._skips:
                raise
            self._failed[key] = str(error)
            return None
        for row, why in read.rows.broken.items():
            self._skip(shard, group, row, why)
        prepared = replace(self.prepare(read.rows), captions=read.rows.captions, choices=read.rows.choices)
        prepared = replace(prepared, **vars(read.texts)) if read.texts else prepared
        self._cache[key] = prepared
        self._held += prepared.bytes
        while self._held > self.cache_bytes and len(self._cache) > 1:
            self._held -= self._cache.popitem(last=False)[1].bytes
        return prepared

    def _places(self, rows: Sequence[Row]) -> list[tuple[Prepared, int]]:
        """(row group, row) of each; a row that cannot be read is replaced by another one of the micro-batch."""
        groups = {key: self._prepared(*key) for key in dict.fromkeys((row.shard, row.group) for row in rows)}
        places = [(groups[row.shard, row.group], row.row) for row in rows]
        usable = [(group, row) for group, row in places if group is not None]
        if not usable:
            raise ShardError(f"no row of a micro-batch can be read: {self._failed[rows[0].shard, rows[0].group]}")
        for row, (group, _) in zip(rows, places, strict=True):
            if group is None:
                self._skip(row.shard, row.group, row.row, self._failed[row.shard, row.group])
        return [usable[n % len(usable)] if group is None else (group, row) for n, (group, row) in enumerate(places)]

    def _skip(self, shard: int, group: int, row: int, why: str) -> None:
        if (shard, group, row) not in self.skipped:
            self.skipped[shard, group, row] = why
            log.warning("skipped row %d of row group %d of %s: %s", row, group, self.plan.shards[shard].path, why)

    def _open_shard(self, shard: int) -> pq.ParquetFile:
        """Open a shard; before its first use, check its size, and the hash of a local one."""
        file = self.plan.shards[shard]
        if shard not in self._verified:
            require_size(file, files.sizes([file.path])[0])
            if not remote(file.path) and file_digest(file.path) != file.sha256:
                raise ShardError(f"shard {file.path} does not match its manifest's sha256: build the shards again")
            self._verified.add(shard)
        return files.parquet(file.path)
