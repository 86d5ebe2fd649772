"""Chunks of a planned batch become pool shards, in this process or in Ray tasks: each task reads a run of chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.sources import BadInput, Input, Source
from curation.sources.corrections import Texts
from curation.sources.files import state
from curation.sources.listing import read_plan
from flywheel.core.cluster import cluster, run_all
from flywheel.core.erased import REASON
from flywheel.core.errors import UsageError
from flywheel.core.files import digest, write_parquet
from flywheel.core.image import BadImage, open_image, upright_size
from flywheel.core.schema import POOL, QUARANTINE, ROW_GROUP
from flywheel.core.storage import located

FEW = 4096  # inputs that this process reads alone: starting Ray costs as much
_RUN_ROWS, _RUN_BYTES = 4096, 2**30  # of a task, about: an archive is opened, or decompressed, once per task
_CRASH = "crashed the process that reads it"

Known = Mapping[tuple[str, str], Texts]  # (sample id, URI) → captions
Written = tuple[int, dict[str, str]]  # (chunk, URI → sample id of rows that the pool has already)


@dataclass(frozen=True)
class Run:
    """Chunks that one task writes. batch: its folder; known: rows of the pool from the same addresses.

    crashed: URIs of inputs that killed a process. erased: ids of pictures that may not come back.
    """

    batch: str
    label: str
    source: Source
    chunks: tuple[int, ...]
    known: Known
    erased: frozenset[str]
    crashed: frozenset[str] = frozenset()

    def written(self) -> Iterator[Written]:
        """Write the chunks one by one."""
        batch = located(self.batch)
        planned = read_plan(batch, chunks=self.chunks)
        by_chunk: dict[int, list[Input]] = {}
        for chunk, item in planned:
            by_chunk.setdefault(chunk, []).append(item)
        inputs = [i if i.uri not in self.crashed else replace(i, fault=_CRASH) for _, i in planned]
        rows = Reader(self.source, batch, inputs, self.erased).rows(inputs, self.label)
        for chunk, items in by_chunk.items():
            yield chunk, _write(batch, chunk, islice(rows, len(items)), self.known)


def write_chunks(
    run: Run, todo: Sequence[int], sizes: np.ndarray, inputs: np.ndarray, workers: int
) -> Iterator[Written]:
    """Write the chunks `todo` of a batch, as they get done. sizes, inputs: bytes and number of inputs of each chunk.

    An input that kills the process which reads it is quarantined.
    """
    if inputs[list(todo)].sum() <= FEW:
        yield from replace(run, chunks=tuple(todo)).written()
        return
    runs = [replace(run, chunks=part) for part in _runs(todo, sizes, inputs)]
    with cluster(workers):
        for index, outcome in run_all(_write_run, ((_narrowed(r),) for r in runs)):
            yield from _repaired(runs[index]) if isinstance(outcome, Exception) else outcome


def shard_path(batch: Path, chunk: int) -> Path:
    """The pool shard of a chunk."""
    return batch / f"{chunk:05d}.parquet"


def partial_path(batch: Path, chunk: int) -> Path:
    """Quarantine of one chunk, written before its shard; merged into one file at the end."""
    return batch / "partial" / f"{chunk:05d}.parquet"


def _runs(todo: Sequence[int], sizes: np.ndarray, inputs: np.ndarray) -> Iterator[tuple[int, ...]]:
    """The chunks in runs of neighbours of about a task's size."""
    part: list[int] = []
    for chunk in todo:
        full = inputs[part].sum() >= _RUN_ROWS or sizes[part].sum() >= _RUN_BYTES if part else False
        if part and (full or chunk != part[-1] + 1):
            yield tuple(part)
            part = []
        part.append(chunk)
    if part:
        yield tuple(part)


def _narrowed(run: Run) -> Run:
    """The run with only what its inputs need of the source and of the pool."""
    inputs = [i for _, i in read_plan(located(run.batch), chunks=run.chunks)]
    uris = {i.uri for i in inputs}
    known = {key: texts for key, texts in run.known.items() if key[1] in uris}
    return replace(run, source=run.source.narrowed(inputs), known=known)


def _repaired(run: Run) -> Iterator[Written]:
    """Write a run that killed its process: the inputs that do so alone are quarantined."""
    inputs = [i for _, i in read_plan(located(run.batch), chunks=run.chunks) if i.fault is None]
    calls = ((run.source.narrowed([i]), run.batch, i) for i in inputs)
    crashed = {inputs[n].uri for n, outcome in run_all(_read_one, calls) if isinstance(outcome, Exception)}
    again = replace(run, crashed=run.crashed | crashed)
    for _, outcome in run_all(_write_run, [(_narrowed(again),)]):
        if isinstance(outcome, Exception):
            raise UsageError(
                f"chunks {run.chunks} of {run.batch} killed the process that reads them, and no input alone did: free "
                "memory, then run the same command again"
            )
        yield from outcome


# In the workers ------------------------------------------------------------------------------------------------------
def _write_run(run: Run) -> list[Written]:
    return list(run.written())


def _read_one(source: Source, batch: str, item: Input) -> None:
    for _ in Reader(source, located(batch), [item], frozenset()).rows([item], ""):
        pass


def _write(
    batch: Path, chunk: int, rows: Iterator[tuple[Input, dict[str, Any] | BadInput]], known: Known
) -> dict[str, str]:
    good, bad, again = [], [], dict[str, str]()
    for item, row in rows:
        if isinstance(row, BadInput):
            bad.append({"source_uri": item.uri, "reason": str(row)})
        elif (row["sample_id"], item.uri) in known:
            again[item.uri] = row["sample_id"]
        else:
            good.append(row)
    if bad:
        write_parquet(partial_path(batch, chunk), pa.Table.from_pylist(bad, schema=QUARANTINE))
    table = pa.Table.from_pylist(good, schema=POOL)
    write_parquet(shard_path(batch, chunk), table, row_group_size=ROW_GROUP, encoded=["image"])
    return again


class Reader:
    """Turns inputs of one source into pool rows, one at a time."""

    def __init__(self, source: Source, batch: Path, inputs: Sequence[Input], erased: frozenset[str]) -> None:
        self._source, self._batch, self._erased = source, batch, erased
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
        item = self._listed.get(uri) or self._elsewhere(uri)
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

    def _elsewhere(self, uri: str) -> Input:
        """A reference in another chunk of the batch, or one that an earlier batch of the same folder listed."""
        planned = read_plan(self._batch, uris=[uri])
        if planned:
            return planned[0][1]
        file = state(uri)
        return Input(uri, file.size, file.mtime_ns, fault=file.fault)


def pair_id(target: str, references: Sequence[str], instruction: str) -> str:
    """Sample id of an edit pair: SHA-256 of the target's id, the reference ids in order, and the instruction."""
    return digest(target, list(references), instruction)
