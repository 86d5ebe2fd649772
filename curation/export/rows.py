"""The rows of a part as samples, one row group in memory at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.export.request import CONDITION, Part
from flywheel.core.schema import RIGHTS, SHARD, column
from flywheel.core.storage import readable

UNKNOWN = "unknown"  # licence of a row that states none
_JPEG = b"\xff\xd8\xff"

# What every format tells of a sample beside its pictures.
FIELDS = pa.schema(
    [
        column("key", pa.string(), "name of the sample in this export: part and number"),
        column("text", pa.large_string(), "caption of the chosen kind; for ti2i the edit instruction"),
        *(SHARD.field(n) for n in ("sample_id", "task", "stream", "width", "height", "source_width", "source_height")),
        SHARD.field("captions"),
        *RIGHTS,
    ]
)


@dataclass(frozen=True)
class Sample:
    """A sample of an export: `meta` has the columns of `FIELDS`; pictures are encoded, PNG or JPEG."""

    image: bytes
    references: tuple[bytes, ...]
    mask: bytes | None
    meta: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Its name."""
        return self.meta["key"]


@dataclass
class Tally:
    """Counts of a part: rows written, rows without a caption of the chosen kind, rows by licence and by task."""

    rows: int = 0
    left_out: int = 0
    licences: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)


def suffix(picture: bytes) -> str:
    """File name extension of an encoded picture."""
    return "jpg" if picture.startswith(_JPEG) else "png"


def samples(folder: Path, part: Part, captions: str, tally: Tally) -> Iterator[Sample]:
    """The samples of a part, counted in `tally`. folder: where its spans start."""
    for span in part.spans:
        if not (folder / span.path).exists():  # all its rows were erased since the parts were cut
            continue
        with pq.ParquetFile(readable(folder / span.path)) as file:
            for group in range(span.first, min(span.last, file.num_row_groups)):
                for row in file.read_row_group(group).to_pylist():
                    text = _text(row, captions)
                    if text is None:
                        tally.left_out += 1
                        continue
                    yield _sample(row, text, f"{part.number:05d}-{tally.rows:05d}")
                    tally.rows += 1
                    tally.licences[row.get("license") or UNKNOWN] += 1
                    tally.tasks[row["task"]] += 1


def _text(row: Mapping[str, Any], captions: str) -> str | None:
    if captions == CONDITION or row["task"] == "ti2i":
        return row["caption"]
    return next((c["text"] for c in row["captions"] or () if c["kind"] == captions), None)


def _sample(row: Mapping[str, Any], text: str, key: str) -> Sample:
    meta = {name: row.get(name) for name in FIELDS.names} | {"key": key, "text": text}
    return Sample(row["image"], tuple(row["references"] or ()), row.get("mask"), meta)
