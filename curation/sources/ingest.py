"""Ingest: a source becomes immutable image shards in the pool; unusable inputs are quarantined with a reason.

A batch is written in a fixed order: its plan (every input, cut into chunks), one shard per chunk, the quarantine, and
the manifest last. Run again after a kill, ingest finishes the same chunks, with the bytes of an undisturbed run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources import BadInput, Input, Source, open_source, pool
from curation.sources.corrections import Texts, corrections, take_up
from curation.sources.files import state
from curation.sources.rights import Rights
from curation.sources.urls import Fetching
from curation.sources.urls.source import lists_of
from curation.sources.urls.store import Store
from flywheel.core.erased import REASON, erased_images
from flywheel.core.files import digest, discard_folder, file_digest, write_json, write_parquet
from flywheel.core.image import BadImage, open_image, upright_size
from flywheel.core.schema import POOL, QUARANTINE
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace

SHARD_ROWS = 64
SHARD_BYTES = 256 * 1024 * 1024  # of encoded images per shard: a shard is in memory as a whole

_WILD = re.compile(r"[*?\[]")

Progress = Callable[[int, int, str], None]
_Known = dict[tuple[str, str], Texts]  # (sample id, URI) → captions

_TEXTS = pa.list_(pa.struct([pa.field("kind", pa.string()), pa.field("text", pa.large_string())]))
_PLAN = pa.schema(
    [
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("position", pa.int64()),
        ("task", pa.string()),
        ("stream", pa.string()),
        ("captions", _TEXTS),
        ("references", pa.list_(pa.string())),
        ("mask", pa.string()),
        ("rights", pa.list_(pa.string())),  # as the fields of `Rights`
        ("fault", pa.string()),
        ("chunk", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Ingested:
    """Counts of this call: found = new + known + quarantined. `batch`: the last one written, None if nothing is new.

    captions: of the known, rows whose captions came later or were corrected.
    """

    found: int
    new: int
    known: int
    quarantined: int
    batch: str | None
    captions: int = 0


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
    inputs = opened.inputs()
    unfinished = [b for b in sorted(workspace.path("pool").glob("*")) if _is_unfinished(b, opened)]
    written = [_fill(workspace, b, opened, progress) for b in unfinished]
    known = known_inputs(workspace)
    taken_up = take_up(workspace, corrections(workspace, ((i, known[i.key]) for i in inputs if i.key in known)))
    finished_now = {i.key for b in unfinished for _, i in _read_plan(b)}
    fresh = [i for i in inputs if i.key not in known]
    if fresh:
        batch = _write_plan(workspace, opened, label, fresh)
        written.append(_fill(workspace, batch, opened, progress))
        finished_now |= {i.key for i in fresh}
    here = sum(i.key in finished_now for i in inputs)
    new = sum(w["rows"] for w in written)
    quarantined = sum(w["quarantined"] for w in written)
    again = sum(w["known"] for w in written)
    return Ingested(
        found=len(inputs) - here + new + quarantined + again,
        new=new,
        known=len(inputs) - here + again,
        quarantined=quarantined,
        batch=written[-1]["batch"] if written else None,
        captions=taken_up + sum(w["captions"] for w in written),
    )


def label_of(address: str) -> str:
    """The name of a source in the pool: the last part of its address, without suffix or wildcard."""
    path = address.partition("?")[0].rstrip("/")
    parts = [part for part in path.split("/") if part and not _WILD.search(part)]
    last = parts[-1] if parts else path
    return PurePosixPath(last).stem or last


# Plan ----------------------------------------------------------------------------------------------------------------
def _write_plan(workspace: Workspace, source: Source, label: str, inputs: Sequence[Input]) -> Path:
    rows, chunk, count, size = [], 0, 0, 0
    for item in inputs:
        if count and (count == SHARD_ROWS or size + item.size > SHARD_BYTES):
            chunk, count, size = chunk + 1, 0, 0
        row = vars(item) | {"captions": [{"kind": k, "text": t} for k, t in item.captions], "chunk": chunk}
        rows.append(row)
        count, size = count + 1, size + item.size
    header = {"name": label, "kind": source.kind, "path": source.address}
    number = sum(1 for _ in workspace.path("pool").glob("*/plan.parquet")) + 1
    batch = workspace.path("pool", f"{number:05d}-{digest(header, rows)[:8]}")
    table = pa.Table.from_pylist(rows, schema=_PLAN).replace_schema_metadata(header)
    write_parquet(batch / "plan.parquet", table)
    return batch


def _read_plan(batch: Path) -> list[tuple[int, Input]]:
    """(chunk, input) in plan order."""
    rows = pq.read_table(readable(batch / "plan.parquet")).to_pylist()
    return [
        (
            row.pop("chunk"),
            Input(
                **row
                | {
                    "captions": tuple((c["kind"], c["text"]) for c in row["captions"]),
                    "references": tuple(row["references"]),
                    "rights": Rights(*row.get("rights") or ()),
                }
            ),
        )
        for row in rows
    ]


def _header(batch: Path) -> dict[str, str]:
    metadata = pq.read_schema(readable(batch / "plan.parquet")).metadata
    return {k.decode(): v.decode() for k, v in metadata.items()}


def _is_unfinished(batch: Path, source: Source) -> bool:
    if not (batch / "plan.parquet").exists():
        return False
    return not (batch / "manifest.json").exists() and _header(batch)["path"] == source.address


def known_inputs(workspace: Workspace) -> dict[tuple[str, int, int, str], Texts]:
    """Key of every input of a finished batch → its captions when it was planned."""
    return {item.key: item.captions for batch in workspace.batches() for _, item in _read_plan(batch)}


# Shards --------------------------------------------------------------------------------------------------------------
def _fill(workspace: Workspace, batch: Path, source: Source, progress: Progress | None) -> dict[str, Any]:
    """Write the missing shards of a planned batch; returns its manifest."""
    label = _header(batch)["name"]
    chunks: dict[int, list[Input]] = {}
    for number, item in _read_plan(batch):
        chunks.setdefault(number, []).append(item)
    todo = {n: items for n, items in chunks.items() if not _shard(batch, n).exists()}
    total, done = sum(map(len, chunks.values())), sum(len(v) for n, v in chunks.items() if n not in todo)
    reader = _Reader(source, [i for items in chunks.values() for i in items], erased_images(workspace))
    rows = reader.rows([i for items in todo.values() for i in items], label)
    known = _pool_rows(workspace, {i.uri for items in chunks.values() for i in items})
    again: dict[str, str] = {}  # URI → sample id of known rows
    for number, items in todo.items():
        good, bad = [], []
        for item, row in islice(rows, len(items)):
            if isinstance(row, BadInput):
                bad.append({"source_uri": item.uri, "reason": str(row)})
            elif (row["sample_id"], item.uri) in known:
                again[item.uri] = row["sample_id"]
            else:
                good.append(row)
        if bad:
            write_parquet(_partial(batch, number), pa.Table.from_pylist(bad, schema=QUARANTINE))
        table = pa.Table.from_pylist(good, schema=POOL)
        write_parquet(_shard(batch, number), table, row_group_size=SHARD_ROWS, encoded=["image"])
        done += len(items)
        if progress:
            progress(done, total, "inputs")
    captions = _take_up(workspace, batch, chunks, known, again)
    return _finish(batch, sorted(chunks), total) | {"captions": captions}


def _take_up(
    workspace: Workspace, batch: Path, chunks: dict[int, list[Input]], known: _Known, again: dict[str, str]
) -> int:
    """Take up the captions of the planned inputs that turned out to be known; of those of an earlier attempt too."""
    if not known:
        return 0
    own = {uri for n in chunks for uri in pq.read_table(readable(_shard(batch, n)))["source_uri"].to_pylist()}
    before = {uri: texts for (_, uri), texts in known.items() if uri not in own}
    rows = [(i, before[i.uri]) for items in chunks.values() for i in items if i.uri in before]
    return take_up(workspace, corrections(workspace, rows), again)


def _finish(batch: Path, chunks: Sequence[int], total: int) -> dict[str, Any]:
    parts = [pq.read_table(readable(p)) for n in chunks if (p := _partial(batch, n)).exists()]
    bad = pa.concat_tables([QUARANTINE.empty_table(), *parts])
    write_parquet(batch / "quarantine.parquet", bad)
    shards = [
        {
            "path": path.name,
            "rows": pq.read_metadata(readable(path)).num_rows,
            "bytes": path.stat().st_size,
            "sha256": file_digest(path),
        }
        for path in (_shard(batch, n) for n in chunks)
    ]
    rows = sum(s["rows"] for s in shards)
    counts = {"rows": rows, "quarantined": bad.num_rows, "known": total - rows - bad.num_rows}
    value = {"batch": batch.name, **_header(batch), "shards": shards, **counts}
    write_json(batch / "manifest.json", value)
    discard_folder(batch / "partial")
    return value


def _shard(batch: Path, chunk: int) -> Path:
    return batch / f"{chunk:05d}.parquet"


def _partial(batch: Path, chunk: int) -> Path:
    """Quarantine of one chunk, written before its shard; merged into one file at the end."""
    return batch / "partial" / f"{chunk:05d}.parquet"


def _pool_rows(workspace: Workspace, uris: set[str]) -> _Known:
    """(sample id, URI) → captions of the rows in the pool that came from these URIs."""
    rows: _Known = {}
    for shard in pool.shards(workspace):
        table = pq.read_table(readable(shard.path), columns=["sample_id", "source_uri", "captions"])
        for sample_id, uri, texts in zip(*(c.to_pylist() for c in table.columns)):
            if uri in uris:
                rows[sample_id, uri] = tuple((t["kind"], t["text"]) for t in texts)
    return rows


# Rows ----------------------------------------------------------------------------------------------------------------
class _Reader:
    """Turns inputs of one source into pool rows, one at a time."""

    def __init__(self, source: Source, inputs: Sequence[Input], erased: frozenset[str] = frozenset()) -> None:
        self._source, self._erased = source, erased
        self._listed = {i.uri: i for i in inputs}
        self._reference_id = lru_cache(maxsize=100_000)(self._hash_reference)

    def rows(self, inputs: Sequence[Input], label: str) -> Iterator[tuple[Input, dict[str, Any] | BadInput]]:
        """(input, pool row or why there is none), in order."""
        contents = self._source.read([i for i in inputs if i.fault is None])
        for item in inputs:
            content = BadInput(item.fault) if item.fault is not None else next(contents)
            try:
                yield item, content if isinstance(content, BadInput) else self._row(item, content, label)
            except (BadInput, BadImage) as error:
                yield item, BadInput(str(error))

    def _row(self, item: Input, data: bytes, label: str) -> dict[str, Any]:
        image_id = hashlib.sha256(data).hexdigest()
        if image_id in self._erased:
            raise BadInput(REASON)
        width, height = upright_size(open_image(data))
        references = [self._reference_id(uri) for uri in item.references]
        return {
            "sample_id": pair_id(image_id, references, item.caption) if references else image_id,
            "source_uri": item.uri,
            "source": label,
            "task": item.task,
            "image": data,
            "width": width,
            "height": height,
            "caption": item.caption,
            "captions": [{"kind": k, "text": t} for k, t in item.captions],
            "reference_ids": references,
            "image_id": image_id,
            "stream": item.stream,
            "mask": self._mask(item, (width, height)) if item.mask else None,
            **item.rights._asdict(),
        }

    def _mask(self, item: Input, size: tuple[int, int]) -> bytes | None:
        """Bytes of an edit's mask. Errors: `BadInput` if it is not a picture or not of the target's size."""
        content = self._source.read_mask(item)
        if isinstance(content, BadInput):
            raise content
        if content is None:
            return None
        try:
            width, height = upright_size(open_image(content))
        except BadImage as error:
            raise BadInput(f"mask {item.mask} is unusable: {error}") from error
        if (width, height) != size:
            raise BadInput(f"mask {item.mask} is {width}x{height}, its picture {size[0]}x{size[1]}")
        return content

    def _hash_reference(self, uri: str) -> str:
        """Image id of a reference. Errors: `BadInput` if it is not a readable image."""
        item = self._listed.get(uri) or _stat(uri)
        content = BadInput(item.fault) if item.fault else next(self._source.read([replace(item, task="t2i")]))
        try:
            if isinstance(content, BadInput):
                raise content
            open_image(content)
        except (BadInput, BadImage) as error:
            raise BadInput(f"reference {uri} is unusable: {error}") from error
        image_id = hashlib.sha256(content).hexdigest()
        if image_id in self._erased:
            raise BadInput(f"reference {uri} is {REASON}")
        return image_id


def pair_id(target: str, references: Sequence[str], instruction: str) -> str:
    """Sample id of an edit pair: SHA-256 of the target's id, the reference ids in order, and the instruction."""
    return digest(target, list(references), instruction)


def _stat(uri: str) -> Input:
    """A reference that an earlier batch of the same folder listed."""
    file = state(uri)
    return Input(uri, file.size, file.mtime_ns, fault=file.fault)
