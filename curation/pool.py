"""The pool: batches of immutable image shards. A batch is in the pool once its manifest is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel.workspace import Workspace, read_json

METADATA = (
    "sample_id", "source_uri", "source", "task", "width", "height", "caption", "captions", "reference_ids", "image_id",
    "stream",
)  # fmt: skip


@dataclass(frozen=True)
class Shard:
    """One image shard. `key` (`<batch>-<number>`) names its score files; `sha256` is that of the file."""

    key: str
    path: Path
    rows: int
    sha256: str


def batches(workspace: Workspace) -> list[Path]:
    """Folders of the finished batches, oldest first."""
    return sorted(m.parent for m in workspace.path("pool").glob("*/manifest.json"))


def shards(workspace: Workspace) -> list[Shard]:
    """Every shard with rows, oldest batch first."""
    return [
        Shard(f"{batch.name}-{Path(s['path']).stem}", batch / s["path"], s["rows"], s["sha256"])
        for batch in batches(workspace)
        for s in manifest(batch)["shards"]
        if s["rows"]
    ]


def manifest(batch: Path) -> dict[str, Any]:
    """The manifest of a finished batch."""
    return read_json(batch / "manifest.json")


def quarantined_at_ingest(workspace: Workspace) -> list[dict[str, str]]:
    """Inputs that ingest could not use: source_uri, reason."""
    import pyarrow.parquet as pq

    return [row for b in batches(workspace) for row in pq.read_table(b / "quarantine.parquet").to_pylist()]
