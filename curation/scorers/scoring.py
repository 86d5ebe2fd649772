"""Compute the columns of every scorer for every pool row once. The work to do is the score files that are missing.

A task scores a pack: neighbouring shards of a large batch, one shard of a small one. Thresholds live in the policy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.captioning.written import with_written
from curation.scorers import load
from curation.scorers.stored import Missing, Options, Pending, pending, read_scores, score_writer, unchanged
from curation.sources import pool
from flywheel.core import lens
from flywheel.core.cluster import Needs, cluster, run_all
from flywheel.core.environment import raise_environment_error
from flywheel.core.errors import UsageError
from flywheel.core.image import BadImage
from flywheel.core.schema import SCORE_KEYS
from flywheel.core.scorer import Item, Resources, Scorer, resources_of
from flywheel.core.storage import located, read_parquet, readable
from flywheel.core.workspace import Workspace

Progress = Callable[[int, int, str], None]
References = dict[str, tuple[str, int]]  # image id → (pool shard, row)
Call = tuple[Sequence[pool.Shard], Pending, References]  # what a task scores
Crashed = frozenset[tuple[str, int, str]]  # key of a shard, row, scorer: what kills the process

_COLUMNS = (
    "sample_id",
    "source_uri",
    "image",
    "width",
    "height",
    "caption",
    "captions",
    "task",
    "reference_ids",
)  # columns that are read
_GROUP_PIXELS = 32_000_000  # at most, of rows whose decoded pictures are in memory together
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BLOCK = 32 * 1024 * 1024  # bytes: the largest value that mallopt accepts
_KEPT_HEAP = 256 * 1024 * 1024  # bytes of freed memory that a worker process keeps


def score(
    workspace: Workspace, scorers: Mapping[str, Options], *, progress: Progress | None = None, workers: int = 2
) -> None:
    """Compute the missing score files of the pool: one Ray task per shard, with one decode for all pending scorers.

    A row whose scoring raises, or kills the worker process, gets its `error` set.
    """
    todo = [(pack, part) for pack, names in pending(workspace, scorers) for part in _alike(names)]
    if not todo:
        return
    places = references_of(workspace, list(dict.fromkeys(s.path for pack, _ in todo for s in pack.shards)))
    total, done = sum(len(pack.shards) for pack, _ in todo), 0

    def call(pack: pool.Pack, names: Pending) -> Call:
        return pack.shards, names, _mine(pack.shards, places)

    with cluster(workers):
        failed = []
        for index, failure in run_all(_score_pack, (call(*each) for each in todo), needs=_needs):
            if isinstance(failure, Exception):
                failed.append(call(*todo[index]))
                continue
            done += len(todo[index][0].shards)
            if progress:
                progress(done, total, "shards scored")
        if failed:
            _score_again(failed)
        if failed and progress:
            progress(total, total, "shards scored")


def _alike(names: Pending) -> list[Pending]:
    """The scorers in groups that need the same: each group is a task, with one decode of each picture."""
    groups: dict[Resources, Pending] = {}
    for name, work in names.items():
        needed = replace(resources_of(_loaded(name, work.options)), batch=1)
        groups.setdefault(needed, {})[name] = work
    return list(groups.values())


def _needs(call: Call) -> Needs:
    """What the task of a call occupies."""
    name, missing = next(iter(call[1].items()))
    needed = resources_of(_loaded(name, missing.options))
    return Needs(needed.cpus, needed.gpus, needed.memory)


def references_of(workspace: Workspace, paths: Sequence[Path]) -> References:
    """Places in the pool of the reference images of these pool shards' rows."""
    with lens.connect(workspace) as con:
        source = read_parquet(map(str, paths), union_by_name="true")
        asked = con.execute(f"SELECT DISTINCT unnest(reference_ids) FROM {source}").fetchall()
    return image_places(workspace, [image_id for (image_id,) in asked])


def image_places(workspace: Workspace, ids: Sequence[str]) -> References:
    """The first place in the pool of each of these images that it holds."""
    shards = [str(s.path) for s in pool.shards(workspace)]
    if not ids or not shards:
        return {}
    source = read_parquet(shards, file_row_number="true", union_by_name="true")
    places = f"""SELECT image_id, file_index, file_row_number, (file_index, file_row_number) AS place
        FROM {source} SEMI JOIN wanted USING (image_id)"""
    first = "arg_min(file_index, place), arg_min(file_row_number, place)"
    with lens.connect(workspace) as con:
        con.register("wanted", pa.table({"image_id": pa.array(ids, pa.string())}))
        rows = con.execute(f"SELECT image_id, {first} FROM ({places}) GROUP BY 1").fetchall()
    return {image_id: (shards[file], row) for image_id, file, row in rows}


def _mine(shards: Sequence[pool.Shard], places: References) -> References:
    """Those of the reference images of these pool shards."""
    if not places:
        return {}
    columns = [pq.read_table(readable(s.path), columns=["reference_ids"])["reference_ids"] for s in shards]
    wanted = [i for column in columns for i in pc.unique(pc.list_flatten(column)).to_pylist()]
    return {i: places[i] for i in wanted if i in places}


def fetch_images(places: References) -> dict[str, bytes]:
    """Encoded bytes of pool images by id; each shard is read once."""
    by_shard: dict[str, list[tuple[int, str]]] = {}
    for image_id, (path, row) in sorted(places.items()):
        by_shard.setdefault(path, []).append((row, image_id))
    data: dict[str, bytes] = {}
    for path, rows in by_shard.items():
        with pq.ParquetFile(readable(path)) as file:
            images = pool.take(file, [row for row, _ in rows], ["image"])["image"].to_pylist()
        data |= dict(zip((image_id for _, image_id in rows), images, strict=True))
    return data


# In the worker processes ----------------------------------------------------------------------------------------------
@lru_cache(maxsize=16)
def _loaded(name: str, options: str) -> Scorer:
    """A scorer with its models, loaded once per process."""
    return load(name, **json.loads(options))


def _read(shard: pool.Shard, row: int | None = None) -> list[dict[str, Any]]:
    """Rows of a shard, or one of them, as scorers need them; `shard` and `number` are their place."""
    # On one thread, because parallelism is by process.
    options: dict[str, Any] = {"use_threads": False, "pre_buffer": False, "memory_map": True}
    table = pq.read_table(readable(shard.path), columns=list(_COLUMNS), **options)
    first = row or 0
    rows = with_written(table.slice(first, None if row is None else 1).to_pylist(), shard.captions)
    return [r | {"shard": shard.key, "number": n} for n, r in enumerate(rows, first)]


@lru_cache(maxsize=1)
def _settle() -> None:
    """Once per process: set OpenCV to one thread (parallelism is by process) and keep freed memory between pictures.

    By default glibc returns every plane to the system and faults it in again: up to a third of a picture's cost.
    """
    import ctypes

    import cv2

    cv2.setNumThreads(1)
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):  # glibc
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_HEAP)


def _score_pack(
    shards: Sequence[pool.Shard], todo: Pending, references: References, crashed: Crashed | None = None
) -> None:
    """Score every row of a pack and write the missing files, a shard at a time.

    crashed: of a pack that killed its process, the rows that do so, which get an error; the others are scored alone.
    """
    kept = {name: unchanged(missing, shards) for name, missing in todo.items()}
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(score_writer(located(missing.path), _schema(name, missing), shards))
            for name, missing in todo.items()
        }
        for n, shard in enumerate(shards):
            fresh = {name: missing for name, missing in todo.items() if kept[name][n] is None}
            if fresh:
                rows = _read(shard)
                results = _score_rows(rows, fresh, references, crashed)
            for name, writer in writers.items():
                older = kept[name][n]
                if older is None:
                    table = _table(rows, results[name], writer.schema, shard.start)
                else:
                    table = read_scores(located(older), shard).replace_schema_metadata(writer.schema.metadata)
                writer.write_table(table)


def _try(shard: pool.Shard, row: int | None, todo: Pending, references: References) -> None:
    """Score a shard, or one of its rows, which may kill the worker process."""
    _score_rows(_read(shard, row), todo, references)


def _score_again(calls: Sequence[Call]) -> None:
    """Score packs whose processes died again: rows that kill a process alone lose only their own scores.

    Errors: `UsageError` where a process dies again.
    """
    parts = [(n, shard) for n, (shards, *_) in enumerate(calls) for shard in shards]
    single = [(n, shard) for n, shard in parts if len(calls[n][0]) == 1]
    several = [(n, shard) for n, shard in parts if len(calls[n][0]) > 1]
    tries = ((shard, None, *calls[n][1:]) for n, shard in several)
    guilty = single + [several[i] for i, outcome in run_all(_try, tries) if isinstance(outcome, Exception)]
    rows = [(n, shard, row) for n, shard in guilty for row in range(shard.rows)]
    alone = ((shard, row, *calls[n][1:]) for n, shard, row in rows)
    killers = [rows[i] for i, outcome in run_all(_try, alone) if isinstance(outcome, Exception)]
    # Find the scorer that crashes: the others keep their columns, and only that one runs again after its repair.
    named = [(*killer, name) for killer in killers for name in calls[killer[0]][1]]
    by_scorer = ((shard, row, {name: calls[n][1][name]}, calls[n][2]) for n, shard, row, name in named)
    crashed: dict[int, set[tuple[str, int, str]]] = {n: set() for n in range(len(calls))}
    for index, outcome in run_all(_try, by_scorer):
        if isinstance(outcome, Exception):
            n, shard, row, name = named[index]
            crashed[n].add((shard.key, row, name))
    again = ((*call, frozenset(crashed[n])) for n, call in enumerate(calls))
    for index, outcome in run_all(_score_pack, again, needs=_needs):
        if isinstance(outcome, Exception):
            first = calls[index][0][0].path
            raise UsageError(f"the process that scores {first} died again: free memory, or use fewer --workers")


def _score_rows(
    rows: Sequence[dict[str, Any]], todo: Pending, references: References, crashed: Crashed | None = None
) -> dict[str, list[Any]]:
    """Scorer name → one dict or exception per row."""
    _settle()
    images = fetch_images({i: references[i] for r in rows for i in r["reference_ids"] if i in references})
    results: dict[str, list[Any]] = {name: [] for name in todo}
    batch = max(resources_of(_loaded(name, missing.options)).batch for name, missing in todo.items())
    for group in _groups(rows, batch if crashed is None else 1):
        items = [
            Item(
                image=r["image"],
                caption=r["caption"],
                task=r["task"],
                references=tuple(images[i] for i in r["reference_ids"] if i in images),
                given=r["given"],
            )
            for r in group
        ]
        for name, missing in todo.items():
            if crashed and (group[0]["shard"], group[0]["number"], name) in crashed:
                results[name].append(RuntimeError("crashed the scoring process"))
                continue
            scorer = _loaded(name, missing.options)
            size = resources_of(scorer).batch
            for start in range(0, len(items), size):
                results[name] += _scored(scorer, items[start : start + size])
    return results


def _scored(scorer: Scorer, items: Sequence[Item]) -> Sequence[dict[str, Any] | Exception]:
    """One dict or exception per item: a scorer that raises is asked for each alone. Errors: of the installation."""
    try:
        return scorer.score(items)
    except Exception as error:  # noqa: BLE001 - a plug-in's
        raise_environment_error(error)
        if len(items) == 1:
            return [error]
    return [result for item in items for result in _scored(scorer, [item])]


def _groups(rows: Sequence[dict[str, Any]], batch: int) -> Iterator[list[dict[str, Any]]]:
    """Split rows into consecutive groups of at most `batch`, whose decoded pictures fit in memory."""
    group: list[dict[str, Any]] = []
    pixels = 0
    for row in rows:
        size = row["width"] * row["height"]
        if group and (len(group) == batch or pixels + size > _GROUP_PIXELS):
            yield group
            group, pixels = [], 0
        group.append(row)
        pixels += size
    if group:
        yield group


def _schema(name: str, missing: Missing) -> pa.Schema:
    return pa.schema([*SCORE_KEYS, *_loaded(name, missing.options).fields])


def _table(rows: Sequence[Mapping[str, Any]], results: Sequence[Any], schema: pa.Schema, start: int) -> pa.Table:
    """The scores of a shard whose rows begin at this row of the file."""
    scored = [
        {"row": n, "sample_id": row["sample_id"], "error": reason(r) if isinstance(r, Exception) else None}
        | (r if isinstance(r, dict) else {})
        for n, (row, r) in enumerate(zip(rows, results, strict=True), start)
    ]
    return pa.Table.from_pylist(scored, schema=schema)


def reason(error: Exception) -> str:
    """Text of an error for the `error` column and the quarantine."""
    return str(error) if isinstance(error, BadImage) else f"{type(error).__name__}: {error}"
