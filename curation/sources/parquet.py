"""Parquet with embedded image bytes: a binary column, or the struct {bytes, path} that Hugging Face datasets writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources import MAX_BYTES, BadInput, Input
from flywheel.workspace import UsageError

_IMAGE_NAMES = ("image", "jpg", "jpeg", "png", "webp", "img", "image_bytes", "bytes")
_CAPTION_NAMES = ("caption", "text", "prompt", "txt")
_BATCH = 64  # rows in memory at a time


@dataclass(frozen=True)
class Parquet:
    """One row per input; task t2i. Captions come from a column named caption, text, prompt or txt."""

    path: Path
    kind: str = "parquet"

    def inputs(self) -> list[Input]:
        """Rows in file order. Errors: `UsageError` when the file is unreadable, empty, or has no image column."""
        with self._open() as file:
            image, caption = self._columns(file.schema_arrow)
            state = self.path.stat()
            rows: list[Input] = []
            for batch in file.iter_batches(_BATCH, columns=[c for c in (image, caption) if c]):
                sizes = [len(b) if b is not None else -1 for b in _bytes(batch, image)]
                texts = batch.column(caption).to_pylist() if caption else [None] * len(sizes)
                for size, text in zip(sizes, texts):
                    captions = (("general", text),) if text else ()
                    uri, number = f"{self.path}#{len(rows)}", len(rows)
                    row = Input(uri, max(size, 0), state.st_mtime_ns, number, captions=captions)
                    rows.append(row if size <= MAX_BYTES else _too_large(row))
        if not rows:
            raise UsageError(f"source {self.path} holds no rows")
        return rows

    def read(self, inputs: Sequence[Input]) -> Iterator[bytes | BadInput]:
        """Bytes of these rows (ascending), one pass; row groups that none of them is in are not read."""
        wanted = iter(inputs)
        item = next(wanted, None)
        with self._open() as file:
            image, _ = self._columns(file.schema_arrow)
            start = 0
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                first = start
                if item is not None and item.position < stop:
                    for batch in file.iter_batches(_BATCH, row_groups=[group], columns=[image]):
                        data = _bytes(batch, image)
                        while item is not None and item.position < first + len(batch):
                            found = data[item.position - first]
                            yield BadInput("no embedded bytes in this row") if found is None else found
                            item = next(wanted, None)
                        first += len(batch)
                start = stop
        while item is not None:
            yield BadInput("changed while it was being ingested: ingest the source again")
            item = next(wanted, None)

    def _open(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.path)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"source {self.path} is no readable Parquet file: {error}") from error

    def _columns(self, schema: pa.Schema) -> tuple[str, str | None]:
        images = [f.name for f in schema if _is_image(f.type)]
        image = next((n for n in _IMAGE_NAMES if n in images), images[0] if images else None)
        if image is None:
            raise UsageError(
                f"source {self.path} has no image column (binary, or a struct with bytes);"
                f" it has {', '.join(schema.names)}"
            )
        texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
        return image, next((n for n in _CAPTION_NAMES if n in texts), None)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_image(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _bytes(batch: pa.RecordBatch, name: str) -> list[Any]:
    column = batch.column(name)
    if pa.types.is_struct(column.type):
        column = column.flatten()[column.type.get_field_index("bytes")]  # null structs become null bytes
    return column.to_pylist()


def _too_large(row: Input) -> Input:
    return replace(row, fault=f"too large: {row.size} bytes is over {MAX_BYTES}")
