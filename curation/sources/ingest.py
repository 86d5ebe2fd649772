"""Ingest: a source becomes immutable image shards in the pool; unusable inputs are quarantined with a reason.

A batch is written in a fixed order: its plan (every input, cut into chunks), one shard per chunk, the quarantine, and
the manifest last. Run again after a kill, ingest finishes the same chunks, with the bytes of an undisturbed run.
Listings and plans are tables (`curation.sources.listing`); many chunks are written by Ray (`curation.sources.chunks`).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources import Source, open_source, pool
from curation.sources.chunks import Known, Run, pair_id, partial_path, shard_path, write_chunks
from curation.sources.corrections import Texts, corrected_before, corrections, take_up
from curation.sources.listing import PLAN, Listing, compared, known_addresses, listing, read_plan
from curation.sources.notes import not_read
from curation.sources.urls import Fetching
from curation.sources.urls.source import lists_of
from curation.sources.urls.store import Store
from flywheel.core import hashes
from flywheel.core.erased import erased_images
from flywheel.core.files import digest, discard_folder, file_digest, replacing, write_json, write_parquet
from flywheel.core.schema import QUARANTINE, ROW_GROUP
from flywheel.core.scratch import Scratch
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace

__all__ = ["Ingested", "ingest", "label_of", "pair_id"]

SHARD_ROWS = ROW_GROUP  # rows of a pool shard in a small batch
LARGE_SHARD_ROWS = 1024  # and in a large one: a shard is one task's work
_SHARDS = 64  # a batch has at least so many before they grow
PACK_ROWS = 16_384  # rows that are scored together in a large batch: a task's work, a file per scorer
SHARD_BYTES = 256 * 1024 * 1024  # of encoded images per shard: a shard is in memory as a whole
_PLAN_GROUP = 8192  # rows of a plan that are read together

_WILD = re.compile(r"[*?\[]")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Ingested:
    """Counts of this call: found = new + known + quarantined. `batch`: the last one written, None if nothing is new.

    captions: of the known, rows whose captions came later or were corrected. notes: what of the new was not read.
    """

    found: int
    new: int
    known: int
    quarantined: int
    batch: str | None
    captions: int = 0
    notes: tuple[str, ...] = ()


def ingest(
    workspace: Workspace,
    source: str | Path,
    captions: Path | None = None,
    *,
    name: str | None = None,
    progress: Progress | None = None,
    fetching: Fetching = Fetching(),
    retry: bool = False,
    workers: int = 2,
) -> Ingested:
    """Add new inputs of `source` (a path, glob or URL; see docs/how-to.md) to the pool.

    An input is recognised by its URI, size and modification time, or by (sample id, URI) if only the time changed; new
    captions of known inputs are taken up, and their pictures are not read again. The URLs of lists are fetched first,
    by as many Ray tasks as `workers`; retry: also those that failed before. Errors: `UsageError` for a missing or empty
    source and for captions that name unknown files.
    """
    opened = open_source(source, captions, Store(workspace))
    label = name or label_of(opened.address)
    if lists := lists_of(opened):
        from curation.sources.urls.fetch import fetch

        fetch(workspace, lists, fetching, retry=retry, workers=workers, progress=progress)
    with listing(opened) as (path, count):
        unfinished = [b for b in sorted(workspace.path("pool").glob("*")) if _is_unfinished(b, opened)]
        written = [_fill(workspace, b, opened, progress, workers) for b in unfinished]
        with compared(workspace, path, count) as listed:
            told = listed.told_otherwise(corrected_before(workspace))
            taken_up = take_up(workspace, corrections(workspace, told))
            here, batch = listed.among(unfinished) + listed.fresh, None
            if listed.fresh:
                batch = _write_plan(workspace, opened, label, listed)
        if batch:
            written.append(_fill(workspace, batch, opened, progress, workers))
    new = sum(w["rows"] for w in written)
    quarantined = sum(w["quarantined"] for w in written)
    again = sum(w["known"] for w in written)
    return Ingested(
        found=count - here + new + quarantined + again,
        new=new,
        known=count - here + again,
        quarantined=quarantined,
        batch=written[-1]["batch"] if written else None,
        captions=taken_up + sum(w["captions"] for w in written),
        notes=not_read(opened) if written else (),
    )


def label_of(address: str) -> str:
    """The name of a source in the pool: the last part of its address, without suffix or wildcard."""
    path = address.partition("?")[0].rstrip("/")
    parts = [part for part in path.split("/") if part and not _WILD.search(part)]
    last = parts[-1] if parts else path
    return PurePosixPath(last).stem or last


# Plan ----------------------------------------------------------------------------------------------------------------
def _write_plan(workspace: Workspace, source: Source, label: str, listed: Listing) -> Path:
    """Plan a batch of all new inputs; returns its folder, which is named by the plan's content."""
    header = {"name": label, "kind": source.kind, "path": source.address}
    number = sum(1 for _ in workspace.path("pool").glob("*/plan.parquet")) + 1
    with Scratch() as scratch:
        plan = scratch / "plan.parquet"
        chunks = _chunks(listed.fresh_sizes())
        with pq.ParquetWriter(plan, PLAN.with_metadata(header), compression="zstd", write_page_checksum=True) as writer:
            done = 0
            for rows in listed.fresh_rows():
                chunk = pa.array(chunks[done : done + rows.num_rows], pa.int32())
                table = pa.Table.from_arrays([*rows.columns, chunk], schema=PLAN.with_metadata(header))
                writer.write_table(table, row_group_size=_PLAN_GROUP)
                done += rows.num_rows
        batch = workspace.path("pool", f"{number:05d}-{digest(header, file_digest(plan))[:8]}")
        with replacing(batch / "plan.parquet") as tmp:
            shutil.copyfile(plan, tmp)
    return batch


def _chunks(sizes: np.ndarray) -> np.ndarray:
    """The chunk of each input, int32: neighbours, up to a number of rows and bytes. sizes: bytes, int64."""
    most = min(max(len(sizes) // (_SHARDS * SHARD_ROWS), 1) * SHARD_ROWS, LARGE_SHARD_ROWS)
    ends, start, chunk = np.cumsum(sizes), 0, 0
    out = np.empty(len(sizes), np.int32)
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, before + SHARD_BYTES, side="right"))
        end = min(start + most, max(start + 1, fitting))
        out[start:end] = chunk
        start, chunk = end, chunk + 1
    return out


def _header(batch: Path) -> dict[str, str]:
    metadata = pq.read_schema(readable(batch / "plan.parquet")).metadata
    return {k.decode(): v.decode() for k, v in metadata.items()}


def _is_unfinished(batch: Path, source: Source) -> bool:
    if not (batch / "plan.parquet").exists():
        return False
    return not (batch / "manifest.json").exists() and _header(batch)["path"] == source.address


# Shards --------------------------------------------------------------------------------------------------------------
def _fill(workspace: Workspace, batch: Path, source: Source, progress: Progress | None, workers: int) -> dict[str, Any]:
    """Write the missing shards of a planned batch; returns its manifest."""
    plan = pq.read_table(readable(batch / "plan.parquet"), columns=["chunk", "size"])
    chunk = plan["chunk"].to_numpy()
    inputs, sizes = np.bincount(chunk), np.bincount(chunk, plan["size"].to_numpy())
    there = {path.name for path in batch.glob("[0-9]*.parquet")}
    todo = [n for n in range(len(inputs)) if shard_path(batch, n).name not in there]
    known: Known = _pool_rows(workspace, known_addresses(workspace, batch))
    run = Run(str(batch), _header(batch)["name"], source, (), known, erased_images(workspace))
    done, again = len(chunk) - int(inputs[todo].sum()), dict[str, str]()  # again: URI → sample id of known rows
    for number, found in write_chunks(run, todo, sizes, inputs, workers):
        again |= found
        done += int(inputs[number])
        if progress:
            progress(done, len(chunk), "inputs")
    captions = _take_up(workspace, batch, known, again)
    return _finish(batch, len(inputs), len(chunk)) | {"captions": captions}


def _take_up(workspace: Workspace, batch: Path, known: Known, again: Mapping[str, str]) -> int:
    """Take up the captions of the planned inputs that turned out to be known; of those of an earlier attempt too."""
    if not known:
        return 0
    shards = batch.glob("[0-9]*.parquet")
    columns = (pq.read_table(readable(path), columns=["source_uri"])["source_uri"] for path in shards)
    own = {uri for column in columns for uri in column.to_pylist()}
    before = {uri: texts for (_, uri), texts in known.items() if uri not in own}
    rows = [(i, before[i.uri]) for _, i in read_plan(batch, uris=before)]
    return take_up(workspace, corrections(workspace, rows), again)


def _finish(batch: Path, chunks: int, total: int) -> dict[str, Any]:
    paths = [partial_path(batch, n) for n in range(chunks)]
    there = {path.name for path in (batch / "partial").glob("*.parquet")}
    parts = [pq.read_table(readable(path)) for path in paths if path.name in there]
    bad = pa.concat_tables([QUARANTINE.empty_table(), *parts])
    write_parquet(batch / "quarantine.parquet", bad)
    records = hashes.read(batch).newest
    shards = [_entry(shard_path(batch, n), records) for n in range(chunks)]
    rows = sum(s["rows"] for s in shards)
    counts = {"rows": rows, "quarantined": bad.num_rows, "known": total - rows - bad.num_rows}
    packs = {pool.TOGETHER: _together(chunks, total)}
    value = {"batch": batch.name, **_header(batch), "shards": shards, **counts, **packs}
    write_json(batch / "manifest.json", value)
    discard_folder(batch / "partial")
    return value


def _together(chunks: int, inputs: int) -> int:
    """How many shards of a batch are scored together; as for shards, a batch has many packs before they grow."""
    return max(1, min(chunks // _SHARDS, PACK_ROWS * chunks // max(inputs, 1)))


def _entry(path: Path, records: Mapping[str, hashes.Entry]) -> dict[str, Any]:
    """The manifest's entry of a shard; its hash is the one that its writer recorded."""
    record, rows = records.get(path.name), pq.read_metadata(readable(path)).num_rows
    size = path.stat().st_size
    whole = record is not None and record.kind == hashes.FILE and record.size == size
    sha256 = record.sha256 if record is not None and whole else file_digest(path)
    return {"path": path.name, "rows": rows, "bytes": size, "sha256": sha256}


def _pool_rows(workspace: Workspace, uris: Sequence[str]) -> dict[tuple[str, str], Texts]:
    """(sample id, URI) → captions of the rows in the pool that came from these URIs."""
    return {
        (row["sample_id"], row["source_uri"]): tuple((t["kind"], t["text"]) for t in row["captions"])
        for row in pool.rows_of(workspace, uris, "sample_id", "captions")
    }
