"""Pictures in the answers of URLs: an erasure reaches them whether the pool took them in or not.

The answers hold no digests: those whose size is that of an erased picture are hashed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.sources import pool
from curation.sources.urls import FETCHED
from curation.sources.urls.store import Store
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace
from flywheel.operate.victims import Victims, shard_paths


def images(workspace: Workspace, names: Sequence[str]) -> dict[str, set[str]]:
    """Name → SHA-256 of the pictures that were fetched from it; of URLs among the names, before redirects or after."""
    wanted, found = pa.array(names, pa.string()), dict[str, set[str]]()
    for group, read in _groups(workspace, ["uri", "final_url"]):
        here = {name: pc.is_in(group[name], value_set=wanted) for name in group.column_names}
        there = pc.fill_null(pc.or_(*here.values()), False)
        for uri, final, digest in read(there):
            for name in {uri, final} & set(names):
                found.setdefault(name, set()).add(digest)
    return found


def holding(workspace: Workspace, victims: Victims) -> list[str]:
    """URLs whose answers hold one of the pictures."""
    sizes, asked, uris = _sizes(workspace, victims), set(victims.images), set[str]()
    for group, read in _groups(workspace, ["size"]):
        there = pc.greater(group["size"], 0) if sizes is None else pc.is_in(group["size"], value_set=sizes)
        uris |= {uri for uri, _, digest in read(there) if digest in asked}
    return sorted(uris)


def _groups(workspace: Workspace, columns: Sequence[str]) -> Iterator[tuple[pa.Table, _Read]]:
    """(those columns, what reads the pictures of some rows) of each row group of answers."""
    for path in Store(workspace).answers():
        with pq.ParquetFile(readable(path)) as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, columns=list(columns)), _Read(file, number)


class _Read:
    """(URL, URL after redirects, SHA-256 of the picture) of the rows of a row group that are chosen and have one."""

    def __init__(self, file: pq.ParquetFile, group: int) -> None:
        self._file, self._group = file, group

    def __call__(self, chosen: pa.ChunkedArray) -> Iterator[tuple[str, str, str]]:
        if not pc.any(chosen).as_py():
            return
        table = self._file.read_row_group(self._group, columns=["uri", "final_url", "status", "image"]).filter(chosen)
        for uri, final, status, image in zip(*(column.to_pylist() for column in table.columns)):
            if status == FETCHED and image:
                yield uri, final, hashlib.sha256(image).hexdigest()


def _sizes(workspace: Workspace, victims: Victims) -> pa.Array | None:
    """Bytes of the pictures; None if the pool does not hold all of them."""
    places: dict[str, list[int]] = {}
    known: Collection[str] = {r.image_id for r in victims.rows}
    if set(victims.images) - set(known):
        return None
    for row in victims.rows:
        if row.image_id in victims.images:
            places.setdefault(row.shard, []).append(row.row)
    paths, sizes = shard_paths(workspace), set[int]()
    for shard, rows in places.items():
        with pq.ParquetFile(readable(paths[shard])) as file:
            sizes |= {len(i) for i in pool.take(file, sorted(rows), ["image"])["image"].to_pylist()}
    return pa.array(sorted(sizes), pa.int64())
