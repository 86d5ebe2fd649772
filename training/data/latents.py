"""Cached latents: a side-car file per shard, read by row group instead of decoding and encoding images.

A side-car is named by its shard's SHA-256; its metadata hold autoencoder, resize rule and dtype. It is an Arrow file,
which can be mapped into memory, while Parquet is copied: a record batch for each row group, with sample ids, captions,
and one fixed-size binary column for targets and one for references.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from flywheel.core.errors import UsageError
from flywheel.core.files import replacing
from flywheel.core.storage import located, remote
from training.data import files
from training.data.plan import Shard, ShardError, trained_size
from training.data.row_group import RowGroup, read_row_group, row_choices, to_unit
from training.models.autoencoder import Autoencoder
from training.recipes import LATENTS_DTYPES

_NO_IMAGES = torch.empty(0, 3, 0, 0, dtype=torch.uint8)
DTYPES: Mapping[str, torch.dtype] = {name: getattr(torch, name) for name in LATENTS_DTYPES}


@dataclass(frozen=True)
class Latents:
    """Where side-cars are and what they must be made with. `folder`: local, or an s3:// address.

    `encoder`: the autoencoder's fingerprint. `resolution`, `unit`: as in the loader.
    """

    folder: Path
    encoder: str
    resolution: Mapping[int, int]
    dtype: str = "float32"
    unit: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", located(self.folder))
        if self.dtype not in DTYPES:
            raise UsageError(f"latents of dtype {self.dtype!r}: use one of {', '.join(DTYPES)}")

    @cached_property
    def _opened(self) -> Callable[[Shard], pa.RecordBatchFileReader]:
        return lru_cache(maxsize=64)(self.open)

    def path(self, shard: Shard) -> Path:
        """The shard's side-car."""
        return self.folder / f"{shard.sha256}.arrow"

    def key(self, shard: Shard) -> dict[str, str]:
        """What the metadata of the shard's side-car must be."""
        height, width = trained_size(shard, self.resolution, self.unit)
        rule = f"area {width}x{height}"
        return {"encoder": self.encoder, "resize": rule, "dtype": self.dtype, "shard": shard.sha256}

    def open(self, shard: Shard) -> pa.RecordBatchFileReader:
        """Open and check a side-car. Errors: `ShardError` if it is missing or was made with other settings."""
        path = self.path(shard)
        try:
            file = files.record_batches(path)
        except FileNotFoundError as error:
            raise ShardError(f"no latents of {shard.path} at {path}: write them with flywheel latents first") from error
        except files.READ_ERRORS as error:
            raise ShardError(f"latents {path}: {error}: delete the file and write it again") from error
        metadata = {k.decode(): v.decode() for k, v in (file.schema.metadata or {}).items()}
        for name, wanted in self.key(shard).items():
            if metadata.get(name) != wanted:
                raise ShardError(
                    f"latents {path} have {name} {metadata.get(name)!r}, this run needs {wanted!r}: write them again "
                    "into another folder"
                )
        return file

    def read(self, shard: Shard, index: int) -> RowGroup:
        """Row group `index` without pixels; rows whose latents are null are `broken`. Errors: `ShardError`.

        Latents of a local float32 side-car are the file itself, mapped into memory: do not write to them.
        """
        try:
            return _read(self._opened(shard), index)
        except files.READ_ERRORS as error:
            raise ShardError(
                f"latents {self.path(shard)}, row group {index}: {error}: delete the file and write it again"
            ) from error


def write_latents(
    shards: Sequence[Shard],
    autoencoder: Autoencoder,
    latents: Latents,
    *,
    skip: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[tuple[str, int, int], str]:
    """Write missing side-cars into a local folder; returns unreadable rows with their reasons.

    A row that cannot be read is an error, or with `skip` a null, which the loader skips and counts.
    """
    if remote(latents.folder):
        raise UsageError(
            f"{latents.folder}: latents are written to a local folder: name one, and copy it to S3 afterwards"
        )
    if autoencoder.fingerprint != latents.encoder:
        raise UsageError("the autoencoder is not the one that these latents are for: open that one")
    broken: dict[tuple[str, int, int], str] = {}
    for done, shard in enumerate(shards, 1):
        if latents.path(shard).exists():
            latents.open(shard)
        else:
            broken |= _write(shard, autoencoder, latents, skip)
        if progress:
            progress(done, len(shards), "shards with latents")
    return broken


def encoded(group: RowGroup, autoencoder: Autoencoder) -> tuple[Tensor, Tensor]:
    """Latents of a row group's targets [n, C, h, w] and references [n, R, C, h, w]: cached, or encoded now."""
    if group.latents is not None and group.reference_latents is not None:
        return group.latents, group.reference_latents
    latents = autoencoder.encode(to_unit(group.images))
    n, count = group.references.shape[:2]
    if not count:
        return latents, latents.new_zeros(n, 0, *latents.shape[1:])
    return latents, autoencoder.encode(to_unit(group.references.flatten(0, 1))).unflatten(0, (n, count))


def _read(file: pa.RecordBatchFileReader, index: int) -> RowGroup:
    batch, metadata = file.get_batch(index), file.schema.metadata
    dtype, shape = DTYPES[metadata[b"dtype"].decode()], [int(v) for v in metadata[b"shape"].split(b",")]
    names, captions, column = (batch.column(name) for name in ("sample_id", "caption", "latent"))
    references = [batch.column("references")] if "references" in batch.schema.names else []
    latents = _tensor(column, dtype, (len(batch), *shape))
    nulls = [i for i, valid in enumerate(column.is_valid().to_pylist()) if not valid] if column.null_count else []
    return RowGroup(
        names.to_pylist(),
        captions.to_pylist(),
        _NO_IMAGES,
        _NO_IMAGES.expand(len(batch), 0, 3, 0, 0),
        latents,
        _tensor(references[0], dtype, (len(batch), -1, *shape)) if references else latents[:, None][:, :0],
        dict.fromkeys(nulls, "its latents are null"),
        row_choices(batch),
    )


@torch.no_grad()
def _write(shard: Shard, autoencoder: Autoencoder, latents: Latents, skip: bool) -> dict[tuple[str, int, int], str]:
    broken: dict[tuple[str, int, int], str] = {}
    writer = None
    with files.parquet(shard.path) as source, replacing(latents.path(shard)) as temporary:
        try:
            for index in range(source.num_row_groups):
                size = trained_size(shard, latents.resolution, latents.unit)
                group = read_row_group(shard, index, size, skip=skip, opened=lambda: source)
                broken |= {(str(shard.path), index, row): why for row, why in group.broken.items()}
                targets, references = encoded(group, autoencoder)
                columns = {
                    "sample_id": pa.array(group.sample_ids),
                    "caption": pa.array(group.captions),
                    "latent": _binary(targets, DTYPES[latents.dtype], group.broken),
                }
                if (captions := _captions(source, index)) is not None:
                    columns["captions"] = captions
                if references.shape[1]:
                    columns["references"] = _binary(references, DTYPES[latents.dtype], group.broken)
                metadata = {**latents.key(shard), "shape": ",".join(map(str, targets.shape[1:]))}
                batch = pa.record_batch(columns, metadata=metadata)
                writer = writer or pa.ipc.new_file(str(temporary), batch.schema)
                writer.write_batch(batch)
        finally:
            if writer is not None:
                writer.close()
    return broken


def _captions(shard: pq.ParquetFile, index: int) -> pa.Array | None:
    """Every caption of a row group's rows; None in a shard without the column."""
    if "captions" not in shard.schema_arrow.names:
        return None
    return shard.read_row_group(index, columns=["captions"])["captions"].combine_chunks()


def _binary(x: Tensor, dtype: torch.dtype, nulls: Mapping[int, str]) -> pa.Array:
    """One fixed-size binary value a row."""
    flat = x.to(dtype).flatten(1).contiguous().view(torch.uint8).numpy()
    data = pa.py_buffer(flat)
    valid = pa.array([i not in nulls for i in range(len(flat))]).buffers()[1] if nulls else None
    return pa.Array.from_buffers(pa.binary(flat.shape[1]), len(flat), [valid, data])


def _tensor(column: pa.FixedSizeBinaryArray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """The column's memory as float32, copied only if it has another dtype."""
    width = column.type.byte_width
    plain = pa.Array.from_buffers(
        pa.uint8(), len(column) * width, [None, column.buffers()[1]], offset=column.offset * width
    )
    return torch.from_dlpack(plain).view(dtype).view(shape).float()
