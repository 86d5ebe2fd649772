"""Photographs that synthesis starts from: a folder, or the pool's text-to-image pictures."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel.core.errors import UsageError
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace


@dataclass(frozen=True)
class Picture:
    """Place of a picture (a file, or a row of a pool shard) and its caption."""

    path: str
    row: int | None
    caption: str

    def read(self) -> bytes:
        """Encoded bytes of the picture."""
        return Path(self.path).read_bytes() if self.row is None else _images(self.path)[self.row].as_py()


def in_folder(folder: Path, captions: Path | None = None) -> list[Picture]:
    """Readable files of a folder in path order. Errors: `UsageError`, as for a source."""
    from curation.sources.folder import folder_at

    if not folder.is_dir():
        raise UsageError(f"--photos {folder} is not a folder: pass a folder of photographs")
    listed = folder_at(folder, captions).inputs()
    return [Picture(i.uri, None, i.caption) for i in listed if i.fault is None and not i.references]


def in_pool(workspace: Workspace, snapshot: str | None) -> list[Picture]:
    """Pictures of the pool's t2i stream: those that `snapshot` admitted, or all without a snapshot.

    Errors: `UsageError` if there are none.
    """
    from curation.captioning.written import ROW, with_written
    from curation.sources import pool

    admitted = _admitted(workspace, snapshot) if snapshot else None
    pictures = []
    for shard in pool.shards(workspace):
        columns = [*ROW, "stream"]
        rows = with_written(pq.read_table(readable(shard.path), columns=columns).to_pylist(), shard.captions)
        for number, row in enumerate(rows):
            if row["stream"] == "t2i" and (admitted is None or row["sample_id"] in admitted):
                pictures.append(Picture(str(shard.path), number, row["caption"]))
    if not pictures:
        raise UsageError(
            f"the pool of {workspace.root} has no pictures to start from: run `flywheel run --source` first"
        )
    return pictures


def shuffled(pictures: Sequence[Picture], seed: str) -> list[Picture]:
    """Shuffle by seed; pictures of one pool shard stay together, so that each shard is read once."""
    rng = random.Random(seed)
    groups = [list(group) for _, group in groupby(pictures, key=lambda p: p.path if p.row is not None else id(p))]
    rng.shuffle(groups)
    for group in groups:
        rng.shuffle(group)
    return [picture for group in groups for picture in group]


def _admitted(workspace: Workspace, snapshot: str) -> set[str]:
    path = workspace.snapshot(snapshot, "decisions")
    table = pq.read_table(readable(path), columns=["sample_id", "outcome"])
    return {i for i, outcome in zip(*(c.to_pylist() for c in table.columns)) if outcome == "admitted"}


@lru_cache(maxsize=2)
def _images(path: str) -> pa.ChunkedArray:
    return pq.read_table(readable(path), columns=["image"])["image"]
