"""Reads the rows of a plan: row group by row group, decoded and prepared once while it is in use."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from flywheel.workspace import file_digest
from training.data.plan import Plan, Row, Shard, ShardError


@dataclass(frozen=True)
class RowGroup:
    """Decoded rows of one layout. `images` uint8 [n, 3, H, W]; `references` uint8 [n, R, 3, H, W]."""

    sample_ids: list[str]
    captions: list[str]
    images: Tensor
    references: Tensor


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
        return sum(x.numel() * x.element_size() for x in (self.latents, self.references, *self.states, *self.nulls))


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one layout, gathered from prepared row groups; `rows` says where each came from."""

    rows: list[Row]
    latents: Tensor
    references: Tensor
    states: list[Tensor]
    nulls: Sequence[Tensor] = ()
    lead: tuple[int, ...] = ()


class Loader:
    """Micro-batches of a plan. `prepare` must be a pure function of a row group: that makes resume exact.

    `resolution`: pixels to train at by bucket; stored images are area-resized from the bucket's size to it.
    `cache_bytes` bounds the prepared row groups kept, whatever the size of the data. Errors: `ShardError`.
    """

    def __init__(
        self,
        plan: Plan,
        prepare: Callable[[RowGroup], Prepared],
        *,
        resolution: Mapping[int, int],
        cache_bytes: int = 256 << 20,
    ) -> None:
        self.plan, self.prepare, self.resolution, self.cache_bytes = plan, prepare, resolution, cache_bytes
        self._cache: OrderedDict[tuple[int, int], Prepared] = OrderedDict()
        self._held = 0
        self._verified: set[int] = set()

    def batch(self, t: int) -> list[MicroBatch]:
        """Global batch t."""
        return [self.gather(rows) for rows in self.plan.batch(t)]

    def gather(self, rows: Sequence[Row]) -> MicroBatch:
        """Rows of one layout as tensors."""
        groups = [(self._prepared(row.shard, row.group), row.row) for row in rows]
        return MicroBatch(
            list(rows),
            torch.stack([group.latents[i] for group, i in groups]),
            torch.stack([group.references[i] for group, i in groups]),
            [group.states[i] for group, i in groups],
            [group.nulls[i] for group, i in groups if group.nulls],
            groups[0][0].lead,
        )

    def read(self, shard: int, group: int) -> RowGroup:
        """Decode one row group."""
        found = self.plan.shards[shard]
        self._verify(shard)
        return read_row_group(found, group, self.resolution.get(found.bucket, found.bucket))

    def _prepared(self, shard: int, group: int) -> Prepared:
        key = (shard, group)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        prepared = self.prepare(self.read(shard, group))
        self._cache[key] = prepared
        self._held += prepared.bytes
        while self._held > self.cache_bytes and len(self._cache) > 1:
            self._held -= self._cache.popitem(last=False)[1].bytes
        return prepared

    def _verify(self, shard: int) -> None:
        if shard not in self._verified:
            found = self.plan.shards[shard]
            if not found.path.is_file():
                raise ShardError(f"shard {found.path} is missing: build the shards again, or restore the file")
            if file_digest(found.path) != found.sha256:
                raise ShardError(f"shard {found.path} does not match its manifest's sha256: build the shards again")
            self._verified.add(shard)


def read_row_group(shard: Shard, index: int, pixels: int) -> RowGroup:
    """Rows of one row group, at `pixels` instead of the bucket's size. Errors: `ShardError` names file and row."""
    columns = ["sample_id", "caption", "image", "references"]
    try:
        with pq.ParquetFile(shard.path) as file:
            table = file.read_row_group(index, columns=columns)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise ShardError(f"shard {shard.path}, row group {index}: {error}: build the shards again") from error
    height, width, count = shard.shape
    size = (width * pixels // shard.bucket, height * pixels // shard.bucket)
    images, references = [], []
    for number, row in enumerate(table.to_pylist()):
        try:
            images.append(_decode(row["image"], (width, height), size))
            found = [_decode(data, (width, height), size) for data in row["references"] or []]
            if len(found) != count:
                raise ValueError(f"{len(found)} references instead of {count}")
            references.append(np.stack(found) if found else np.zeros((0, 3, *size[::-1]), np.uint8))
        except (OSError, ValueError, SyntaxError) as error:  # what PIL raises on damaged files
            raise ShardError(
                f"shard {shard.path}, row group {index}, row {number}, sample {row['sample_id']}: {error}: "
                "build the shards again"
            ) from error
    return RowGroup(
        table["sample_id"].to_pylist(),
        table["caption"].to_pylist(),
        torch.from_numpy(np.stack(images)),
        torch.from_numpy(np.stack(references)),
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
