"""What a pool holds after ingest."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow.parquet as pq

from curation.sources import pool
from flywheel.core.workspace import Workspace


def rows(workspace: Workspace) -> list[dict]:
    return [r for s in pool.shards(workspace) for r in pq.read_table(s.path).to_pylist()]


def reasons(workspace: Workspace) -> dict[str, str]:
    return {Path(r["source_uri"]).name: r["reason"] for r in pool.quarantined_at_ingest(workspace)}


def write_tar(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path
