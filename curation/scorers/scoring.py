"""Compute the columns of every scorer for every pool row once. The work to do is the score files that are missing.

`scores/<scorer>@<version>/<shard>.parquet` holds one row per pool row, in the same order. A file that exists is
finished. Thresholds live in the policy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.captioning.written import with_written
from curation.scorers import load
from curation.sources import pool
from flywheel.core import lens
from flywheel.core.cluster import Needs, cluster, run_all
from flywheel.core.environment import raise_environment_error
from flywheel.core.files import discard, write_parquet
from flywheel.core.image import BadImage
from flywheel.core.schema import SCORE_KEYS
from flywheel.core.scorer import Item, Resources, Scorer, full_version, resources_of
from flywheel.core.storage import located, read_parquet, readable
from flywheel.core.workspace import Workspace

Progress = Callable[[int, int, str], None]
Options = Mapping[str, Any]
References = dict[str, tuple[str, int]]  # image id → (pool shard, row)

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
    todo = [(s, part) for s, names in pending(workspace, scorers) for part in _alike(names)]
    if not todo:
        return
    places = references_of(workspace, list(dict.fromkeys(s.path for s, _ in todo)))

    def call(shard: pool.Shard, names: Pending) -> tuple[Path, Pending, References, tuple[Path, ...]]:
        return shard.path, names, _mine(shard.path, places), shard.captions

    with cluster(workers):
        calls = (call(*each) for each in todo)
        for done, (index, failure) in enumerate(run_all(_score_shard, calls, needs=_needs), 1):
            if isinstance(failure, Exception):
                _score_row_by_row(*call(*todo[index]))
            if progress:
                progress(done, len(todo), "shards scored")


def _alike(names: Pending) -> list[Pending]:
    """The scorers in groups that need the same: each group is a task, with one decode of each picture."""
    groups: dict[Resources, Pending] = {}
    for name, work in names.items():
        needed = replace(resources_of(_loaded(name, work[0])), batch=1)
        groups.setdefault(needed, {})[name] = work
    return list(groups.values())


def _needs(call: tuple[Path, Pending, References, Sequence[Path]]) -> Needs:
    """What the task of a call occupies."""
    name, (options, _) = next(iter(call[1].items()))
    needed = resources_of(_loaded(name, options))
    return Needs(needed.cpus, needed.gpus, needed.memory)


def score_path(workspace: Workspace, scorer: Scorer, shard: pool.Shard) -> Path:
    """Path of the score file of a shard."""
    return _folder(workspace, scorer) / f"{pool.score_key(shard.key, shard.texts, scorer.name)}.parquet"


def _folder(workspace: Workspace, scorer: Scorer) -> Path:
    return workspace.path("scores", f"{scorer.name}@{full_version(scorer)}")


Pending = dict[str, tuple[str, str]]  # scorer name → (options as JSON, path of the missing score file)


def pending(workspace: Workspace, scorers: Mapping[str, Options]) -> list[tuple[pool.Shard, Pending]]:
    """Shards with missing score files, each with those files."""
    loaded = {name: load(name, **options) for name, options in scorers.items()}
    # List each folder once: on S3, checking single files costs a request each.
    present = {n: {p.name for p in _folder(workspace, scorer).glob("*.parquet")} for n, scorer in loaded.items()}
    todo = []
    for shard in pool.shards(workspace):
        paths = {name: score_path(workspace, scorer, shard) for name, scorer in loaded.items()}
        missing = {n: (json.dumps(dict(scorers[n])), str(p)) for n, p in paths.items() if p.name not in present[n]}
        if missing:
            todo.append((shard, missing))
    return todo


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


def _mine(path: Path, places: References) -> References:
    """Those of a pool shard's reference images."""
    if not places:
        return {}
    column = pq.read_table(readable(path), columns=["reference_ids"])["reference_ids"]
    wanted = pc.unique(pc.list_flatten(column)).to_pylist()
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


def mark_unusable(workspace: Workspace, scorer: Scorer, faults: Mapping[tuple[str, int], str]) -> None:
    """Set the `error` of rows that failed after scoring; `faults`: (key of the pool shard, row) → reason.

    Deletes the score tables of their batches, which are then written again.
    """
    for shard in pool.shards(workspace):
        reasons = {row: why for (key, row), why in faults.items() if key == shard.key}
        if not reasons:
            continue
        for derived in workspace.path("tables").glob(f"{shard.path.parent.name}@*.parquet"):
            discard(derived)  # first: after a kill in between, no table may be left that is older than its scores
        path = score_path(workspace, scorer, shard)
        table = pq.read_table(readable(path))
        errors = [reasons.get(n, error) for n, error in enumerate(table["error"].to_pylist())]
        place = table.schema.get_field_index("error")
        write_parquet(path, table.set_column(place, table.schema.field(place), pa.array(errors, pa.string())))


# In the worker processes ----------------------------------------------------------------------------------------------
@lru_cache(maxsize=16)
def _loaded(name: str, options: str) -> Scorer:
    """A scorer with its models, loaded once per process."""
    return load(name, **json.loads(options))


def _read(shard: Path) -> pa.Table:
    """The columns of a shard that scorers need; read on one thread because parallelism is by process."""
    return pq.read_table(readable(shard), columns=list(_COLUMNS), use_threads=False, pre_buffer=False, memory_map=True)


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


def _score_shard(shard: Path, todo: Pending, references: References, captions: Sequence[Path]) -> None:
    """Score every row of a shard and write the missing files."""
    rows = list(with_written(_read(shard).to_pylist(), captions))
    results = _score_rows(rows, todo, references)
    _write(todo, [r["sample_id"] for r in rows], results)


def _score_one(
    shard: Path, row: int, todo: Pending, references: References, captions: Sequence[Path]
) -> dict[str, list[Any]]:
    """Score a single row, which may kill the worker process."""
    rows = list(with_written(_read(shard).slice(row, 1).to_pylist(), captions))
    return _score_rows(rows, todo, references)


def _score_row_by_row(shard: Path, todo: Pending, references: References, captions: Sequence[Path]) -> None:
    """Score each row alone, so that a row that kills its worker process loses only itself."""
    ids = pq.read_table(readable(shard), columns=["sample_id"])["sample_id"].to_pylist()
    results: dict[str, list[Any]] = {name: [None] * len(ids) for name in todo}
    calls = [(shard, row, todo, references, captions) for row in range(len(ids))]
    killers = []
    for row, scores in run_all(_score_one, calls):
        if isinstance(scores, Exception):
            killers.append(row)
        else:
            for name in todo:
                results[name][row] = scores[name][0]
    # Find the scorer that crashes: the others keep their columns, and only that one runs again after its repair.
    again = [(row, name) for row in killers for name in todo]
    calls = [(shard, row, {name: todo[name]}, references, captions) for row, name in again]
    for index, scores in run_all(_score_one, calls):
        row, name = again[index]
        if isinstance(scores, Exception):
            results[name][row] = RuntimeError("crashed the scoring process")
        else:
            results[name][row] = scores[name][0]
    _write(todo, ids, results)


def _score_rows(rows: Sequence[dict[str, Any]], todo: Pending, references: References) -> dict[str, list[Any]]:
    """Scorer name → one dict or exception per row."""
    _settle()
    images = fetch_images({i: references[i] for r in rows for i in r["reference_ids"] if i in references})
    results: dict[str, list[Any]] = {name: [] for name in todo}
    batch = max(resources_of(_loaded(name, options)).batch for name, (options, _) in todo.items())
    for group in _groups(rows, batch):
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
        for name, (options, _) in todo.items():
            scorer = _loaded(name, options)
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


def _write(todo: Pending, ids: Sequence[str], results: Mapping[str, Sequence[Any]]) -> None:
    for name, (options, path) in todo.items():
        scorer = _loaded(name, options)
        rows = [
            {"row": n, "sample_id": i, "error": reason(r) if isinstance(r, Exception) else None}
            | (r if isinstance(r, dict) else {})
            for n, (i, r) in enumerate(zip(ids, results[name], strict=True))
        ]
        write_parquet(located(path), pa.Table.from_pylist(rows, schema=pa.schema([*SCORE_KEYS, *scorer.fields])))


def reason(error: Exception) -> str:
    """Text of an error for the `error` column and the quarantine."""
    return str(error) if isinstance(error, BadImage) else f"{type(error).__name__}: {error}"
