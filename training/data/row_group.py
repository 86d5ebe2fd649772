"""Decodes a row group of a shard: pictures of one layout, with their captions and references."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from flywheel.core.schema import CAPTION_KINDS
from training.data import files
from training.data.captions import Caption, choices
from training.data.plan import Shard, ShardError

Empty = Callable[..., Tensor]
"""As `torch.empty`: (shape, dtype=…)."""

_JPEG = b"\xff\xd8"  # how one begins


@dataclass(frozen=True)
class RowGroup:
    """Decoded rows of one layout. `images` uint8 [n, 3, H, W]; `references` uint8 [n, R or 0, 3, H, W].

    Both lie in memory as decoders write them: the channels of a pixel side by side.
    `choices`: per row, the captions that may train, its text condition first; empty if there is nothing to choose from.
    `latents`, `reference_latents`: float32 [n, C, h, w] and [n, R, C, h, w] if they were cached, not to be written to;
    `images` is empty then. `broken`: rows that cannot be read, with the reason; each is replaced by the next readable
    row.
    """

    sample_ids: list[str]
    captions: list[str]
    images: Tensor
    references: Tensor
    latents: Tensor | None = None
    reference_latents: Tensor | None = None
    broken: Mapping[int, str] = field(default_factory=dict)
    choices: Sequence[Sequence[Caption]] = ()


def read_row_group(
    shard: Shard,
    index: int,
    size: tuple[int, int],
    *,
    skip: bool = False,
    opened: Callable[[], pq.ParquetFile] | None = None,
    cached: RowGroup | None = None,
    reference_pixels: bool = True,
    empty: Empty = torch.empty,
) -> RowGroup:
    """Rows of one row group, area-resized to `size` (height, width). Errors: `ShardError` names file and row.

    empty: makes the tensors that pixels are written to.

    With `skip`, an unreadable row is replaced by the next readable one, and listed in `broken`. If `cached`, the row
    group's latents, is all that is needed, the shard itself is not read.
    """
    group = cached
    if group is None or (shard.shape[2] and reference_pixels):
        decoded = _decoded(
            shard, index, size, opened or (lambda: files.parquet(shard.path)), empty, targets=group is None
        )
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
    return RowGroup(**{name: _reordered(part, order) for name, part in parts.items()}, broken=group.broken)


def _reordered(part: Any, order: list[int]) -> Any:
    """Rows of a tensor or list in another order; an empty one is returned as it is."""
    if part is None or not len(part):
        return part
    return part[order] if isinstance(part, Tensor) else [part[i] for i in order]


def _decoded(
    shard: Shard,
    index: int,
    trained: tuple[int, int],
    opened: Callable[[], pq.ParquetFile],
    empty: Empty,
    *,
    targets: bool,
) -> RowGroup:
    """A row group's references, and its targets too; rows that cannot be decoded are listed in `broken`."""
    height, width, count = shard.shape
    decodes = ("image", "references") if targets else ("references",)
    try:
        file = opened()
        columns = ["sample_id", "caption", *decodes, *(["captions"] if "captions" in file.schema_arrow.names else [])]
        table = file.read_row_group(index, columns=columns, use_threads=False)
    except files.READ_ERRORS as error:
        raise ShardError(f"shard {shard.path}, row group {index}: {error}: build the shards again") from error
    rows, broken = len(table), {}
    pixels = empty((rows if targets else 0, *trained, 3), dtype=torch.uint8)
    reference_pixels = empty((rows, count, *trained, 3), dtype=torch.uint8)
    images, references = pixels.numpy(), reference_pixels.numpy()
    for number, row in enumerate(table.select(["references"]).to_pylist()):
        try:
            if targets:
                _decode(table["image"][number].as_buffer(), (width, height), images[number])
            pictures = row["references"] or []
            if len(pictures) != count:
                raise ValueError(f"{len(pictures)} references instead of {count}")
            for place, data in zip(references[number], pictures, strict=True):
                _decode(data, (width, height), place)
        except (OSError, ValueError, SyntaxError, TypeError) as error:  # what PIL raises on damaged or missing images
            broken[number] = f"{error}"
    return RowGroup(
        table["sample_id"].to_pylist(),
        table["caption"].to_pylist(),
        pixels.movedim(-1, -3),
        reference_pixels.movedim(-1, -3),
        broken=broken,
        choices=row_choices(table),
    )


def row_choices(table: pa.Table | pa.RecordBatch) -> list[tuple[Caption, ...]]:
    """`RowGroup.choices` of a table with the columns caption and captions."""
    if "captions" not in table.schema.names:
        return []
    pairs = zip(table.column("caption").to_pylist(), table.column("captions").to_pylist(), strict=True)
    return [choices(caption, captions, CAPTION_KINDS) for caption, captions in pairs]


def _decode(encoded: bytes | pa.Buffer | None, stored: tuple[int, int], place: np.ndarray) -> None:
    """Write an encoded image of exactly the size `stored` (width, height), area-resized, into `place`, uint8 [h, w, 3].

    A JPEG is decoded by libjpeg-turbo, straight into `place`: to the pixels that PIL gives, in half of its time.
    """
    import simplejpeg

    if encoded is None:
        raise ValueError("it has no picture")
    size, data = place.shape[1::-1], memoryview(encoded).cast("B")
    if data[:2] == _JPEG:
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
        _require(stored, (width, height))
        pixels = simplejpeg.decode_jpeg(data, "RGB", buffer=place if size == stored else None)
    else:
        with Image.open(io.BytesIO(data)) as image:
            _require(stored, image.size)
            pixels = np.asarray(image.convert("RGB"))
    if size != stored:
        pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    if pixels is not place:
        place[:] = pixels


def _require(stored: tuple[int, int], size: tuple[int, int]) -> None:
    if size != stored:
        raise ValueError(f"image is {size[0]}x{size[1]}, its layout {stored[0]}x{stored[1]}")


def to_unit(images: Tensor) -> Tensor:
    """uint8 [n, 3, H, W] → float32 in [-1, 1], contiguous; both on the CPU.

    A picture at a time, which stays in the processor's cache, into memory of NumPy, which asks for huge pages: faults
    of small pages took four times as long as the sums.
    """
    import cv2

    values = torch.from_numpy(np.empty(tuple(images.shape), np.float32))
    planes = torch.empty(images.shape[1:], dtype=torch.uint8)
    for place, image in zip(values, images.movedim(-3, -1), strict=True):
        cv2.split(image.numpy(), list(planes.numpy()))
        place.copy_(planes).div_(127.5).sub_(1)
    return values


def to_uint8(images: Tensor) -> Tensor:
    """[-1, 1] → uint8."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
