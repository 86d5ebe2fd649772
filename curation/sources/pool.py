"""The pool: batches of immutable image shards. A batch joins the pool when its manifest is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.captioning import written
from flywheel.core import lens
from flywheel.core.files import read_json
from flywheel.core.storage import read_parquet, read_table
from flywheel.core.text import untold
from flywheel.core.workspace import Workspace

TOGETHER = "scored_together"  # of a manifest: shards in a pack
_MAY_SAY_NOTHING = r"([\s\p{Z}\p{C}]|&[\w#;&]*;)*"  # captions that `untold` is asked about
READS_CAPTIONS = ("text", "caption", "ocr", "clip", "category")  # scorers that read the caption


@dataclass(frozen=True)
class Shard:
    """One image shard. `key` is `<batch>-<number>`; `sha256` is that of the file.

    `captions`: side-cars with model-written captions. `pack`: name of the score files that hold its rows, from row
    `start` on; `texts`: identity of the model-written captions of that pack that can be a text condition, empty if
    there are none.
    """

    key: str
    path: Path
    rows: int
    sha256: str
    captions: tuple[Path, ...] = ()
    pack: str = ""
    start: int = 0
    texts: str = ""


@dataclass(frozen=True)
class Pack:
    """Neighbouring shards of a batch that one task scores, into one file per scorer with all their rows in order."""

    name: str
    shards: tuple[Shard, ...]

    @property
    def rows(self) -> int:
        """Rows of all its shards."""
        return sum(s.rows for s in self.shards)


def score_key(pack: str, texts: str, scorer: str) -> str:
    """Name of a score file: a scorer that reads captions scores a pack again when model-written captions arrive."""
    return f"{pack}+{texts}" if texts and scorer in READS_CAPTIONS else pack


def packs(workspace: Workspace) -> list[Pack]:
    """Every pack with rows, oldest batch first."""
    captions = written.sidecars(workspace)
    found = (
        _pack(batch, name, part, captions)
        for batch in workspace.batches()
        for name, part in packed(batch, manifest(batch))
    )
    return [pack for pack in found if pack.shards]


def shards(workspace: Workspace) -> list[Shard]:
    """Every shard with rows, oldest batch first."""
    return [shard for pack in packs(workspace) for shard in pack.shards]


def packed(batch: Path, listed: Mapping[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(name of its score files, its entries) of each pack that the batch's manifest lists.

    A pack of a batch that an earlier version wrote is one shard.
    """
    shards, together = listed.get("shards", []), listed.get(TOGETHER, 1)
    for start in range(0, len(shards), together):
        part = shards[start : start + together]
        first = f"{batch.name}-{Path(part[0]['path']).stem}"
        yield (first if len(part) == 1 else f"{first}x{len(part)}"), part


def _pack(
    batch: Path, name: str, listed: Sequence[Mapping[str, Any]], captions: Mapping[str, tuple[Path, ...]]
) -> Pack:
    keys = [f"{batch.name}-{Path(s['path']).stem}" for s in listed]
    texts = written.text_key(path for key in keys for path in captions.get(key, ()))
    starts = accumulate((s["rows"] for s in listed), initial=0)
    found = (
        Shard(key, batch / s["path"], s["rows"], s["sha256"], captions.get(key, ()), name, start, texts)
        for key, s, start in zip(keys, listed, starts)
    )
    return Pack(name, tuple(shard for shard in found if shard.rows))


def rows_of(workspace: Workspace, uris: Iterable[str], *columns: str) -> Iterator[dict[str, Any]]:
    """Rows that came from these inputs, in pool order: `shard`, `source_uri` and the columns asked for."""
    listed, wanted = shards(workspace), list(uris)
    if not listed or not wanted:
        return
    source = read_parquet((str(s.path) for s in listed), file_row_number="true", union_by_name="true")
    chosen = ", ".join(("source_uri", *columns))
    with lens.connect(workspace) as con:
        con.register("wanted", pa.table({"source_uri": pa.array(wanted, pa.string())}))
        query = f"""SELECT file_index, {chosen} FROM {source} SEMI JOIN wanted USING (source_uri)
            ORDER BY file_index, file_row_number"""
        for row in con.sql(query).to_arrow_table().to_pylist():
            yield {"shard": listed[row.pop("file_index")], **row}


def take(file: pq.ParquetFile, numbers: Sequence[int], columns: Sequence[str]) -> pa.Table:
    """Rows of a shard by number; row groups without any of them are not read."""
    ends = np.cumsum([file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)], dtype=np.int64)
    wanted = np.asarray(numbers, np.int64)
    groups = np.unique(np.searchsorted(ends, wanted, side="right"))
    read = file.read_row_groups(groups.tolist(), columns=list(columns), use_threads=False)
    sizes = np.diff(ends, prepend=0)
    skipped = ends - sizes  # rows before each group …
    before = np.zeros(len(ends), np.int64)
    before[groups] = np.cumsum(sizes[groups]) - sizes[groups]  # … in the file, and in what was read
    group = np.searchsorted(ends, wanted, side="right")
    return read.take(pa.array(wanted - skipped[group] + before[group]))


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
    return [row for b in workspace.batches() for row in read_table(b / "quarantine.parquet").to_pylist()]


def uncaptioned(workspace: Workspace) -> int:
    """Number of pictures that have no caption of their own, and none that a model wrote for them."""
    listed = shards(workspace)
    if not listed:
        return 0
    written_for = [str(p) for s in listed for p in s.captions if p.parent.parent.name != "add"]
    source = read_parquet([str(s.path) for s in listed], union_by_name="true")
    texts = f"SELECT DISTINCT caption FROM {source} WHERE regexp_full_match(caption, '{_MAY_SAY_NOTHING}')"
    sql = f"SELECT count(*) FROM {source} WHERE task = 't2i' AND caption IN (FROM untold)"
    if written_for:
        sql += f" AND sample_id NOT IN (SELECT sample_id FROM {read_parquet(written_for)} WHERE error IS NULL)"
    with lens.connect(workspace) as con:
        found = [text for (text,) in con.execute(texts).fetchall() if untold(text)]
        con.register("untold", pa.table({"caption": pa.array(found, pa.string())}))
        ((count,),) = con.execute(sql).fetchall()
    return count
