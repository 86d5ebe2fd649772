"""The pool: batches of immutable image shards. A batch joins the pool when its manifest is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.captioning import written
from flywheel.core import lens
from flywheel.core.files import read_json
from flywheel.core.storage import read_parquet, readable
from flywheel.core.workspace import Workspace

READS_CAPTIONS = ("text", "caption", "ocr", "clip", "category")  # scorers that read the caption


@dataclass(frozen=True)
class Shard:
    """One image shard. `key` (`<batch>-<number>`) names its score files; `sha256` is that of the file.

    `captions`: side-cars with model-written captions.
    """

    key: str
    path: Path
    rows: int
    sha256: str
    captions: tuple[Path, ...] = ()

    @property
    def texts(self) -> str:
        """Identity of the model-written captions that can be a text condition; empty if there are none."""
        return written.text_key(self.captions)


def score_key(shard: str, texts: str, scorer: str) -> str:
    """Name of a score file: a scorer that reads captions scores a shard again when model-written captions arrive."""
    return f"{shard}+{texts}" if texts and scorer in READS_CAPTIONS else shard


def shards(workspace: Workspace) -> list[Shard]:
    """Every shard with rows, oldest batch first."""
    captions = written.sidecars(workspace)
    return [
        Shard(key, batch / s["path"], s["rows"], s["sha256"], captions.get(key, ()))
        for batch in workspace.batches()
        for s in manifest(batch)["shards"]
        if s["rows"] and (key := f"{batch.name}-{Path(s['path']).stem}")
    ]


def shard_file(workspace: Workspace, key: str) -> Path | None:
    """The file of a shard by its key; None if there is none."""
    name, _, number = key.rpartition("-")
    batches = {b.name: b for b in workspace.batches()}
    listed = manifest(batches[name])["shards"] if name in batches else []
    return next((batches[name] / s["path"] for s in listed if Path(s["path"]).stem == number), None)


def manifest(batch: Path) -> dict[str, Any]:
    """The manifest of a finished batch."""
    return read_json(batch / "manifest.json")


def quarantined_at_ingest(workspace: Workspace) -> list[dict[str, str]]:
    """Inputs that ingest could not use: source_uri, reason."""
    import pyarrow.parquet as pq

    return [row for b in workspace.batches() for row in pq.read_table(readable(b / "quarantine.parquet")).to_pylist()]


def uncaptioned(workspace: Workspace) -> int:
    """Number of pictures that have no caption of their own, and none that a model wrote for them."""
    listed = shards(workspace)
    if not listed:
        return 0
    written_for = [str(p) for s in listed for p in s.captions if p.parent.parent.name != "add"]
    source = read_parquet([str(s.path) for s in listed], union_by_name="true")
    sql = f"SELECT count(*) FROM {source} WHERE task = 't2i' AND trim(caption) = ''"
    if written_for:
        sql += f" AND sample_id NOT IN (SELECT sample_id FROM {read_parquet(written_for)} WHERE error IS NULL)"
    with lens.connect(workspace) as con:
        ((count,),) = con.execute(sql).fetchall()
    return count
