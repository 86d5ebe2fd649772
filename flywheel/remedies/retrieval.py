"""Retrieval of pool samples near the cases: samples to show more often, captions to generalise, pictures to edit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flywheel.cases.events import Case
from flywheel.core.records import Manifest
from flywheel.core.storage import readable
from flywheel.remedies.index import CaptionIndex

NEIGHBOURS = 8  # captions retrieved per case


@dataclass(frozen=True)
class Hit:
    """A pool sample near a case."""

    sample_id: str
    similarity: float  # cosine of its caption and the case's prompt
    case_id: str


def captions(manifest: Path, side: int | None = None, task: str | None = None) -> list[tuple[str, str]]:
    """(sample_id, caption) of every sample in a snapshot's shards, in a stable order.

    side, task: only of this bucket and this task.
    """
    rows: dict[str, str] = {}
    for f in Manifest.read(manifest).files:
        if side not in (None, f.bucket) or task not in (None, f.task):
            continue
        table = pq.read_table(readable(manifest.parent / f.path), columns=["sample_id", "caption"])
        rows.update(zip(table["sample_id"].to_pylist(), table["caption"].to_pylist()))
    return sorted(rows.items())


def nearest(index: CaptionIndex, cases: Sequence[Case], similarity: float) -> list[Hit]:
    """Samples near any of the cases, best first; each sample once, with the case nearest to it.

    similarity: the smallest cosine that counts as near.
    """
    best: dict[str, Hit] = {}
    by_prompt = {c.prompt: c for c in sorted(cases, key=lambda c: c.case_id)}
    prompts = sorted(by_prompt)
    if not prompts:
        return []
    for prompt, cosines, rows in zip(prompts, *index.search(prompts, NEIGHBOURS)):
        for cosine, row in zip(cosines, rows):
            hit = Hit(index.ids[row], float(cosine), by_prompt[prompt].case_id)
            if cosine >= similarity and (hit.sample_id not in best or hit.similarity > best[hit.sample_id].similarity):
                best[hit.sample_id] = hit
    return sorted(best.values(), key=lambda h: (-h.similarity, h.sample_id))


def rows_of(manifest: Path, ids: Sequence[str], side: int) -> dict[str, dict[str, Any]]:
    """{sample_id: shard row} of the samples in `ids` that are in the bucket `side`."""
    if not ids:
        return {}
    wanted = [("sample_id", "in", set(ids))]
    tables = (pq.read_table(readable(path), filters=wanted) for _, path in _files(manifest, side))
    return {row["sample_id"]: row for table in tables for row in table.to_pylist()}


def pictures(manifest: Path, side: int, first: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """(sample_id, PNG or JPEG) of the pictures in the bucket `side` that edits can start from.

    Samples in `first` come first, in its order. A text-to-image row gives its picture, an edit pair its first
    reference: the picture before a known edit.
    """
    order = {identity: n for n, identity in enumerate(first)}
    places = []
    for task, path in _files(manifest, side):
        ids = pq.read_table(readable(path), columns=["sample_id"])["sample_id"].to_pylist()
        places += [(order.get(i, len(order)), task, str(path), n, i, path) for n, i in enumerate(ids)]
    read = lru_cache(maxsize=2)(lambda path: pq.read_table(readable(path), columns=["image", "references"]))
    for _, task, _, n, identity, path in sorted(places, key=lambda place: place[:4]):
        row = read(path).slice(n, 1).to_pylist()[0]
        if task == "t2i" or row["references"]:
            yield identity, row["image"] if task == "t2i" else row["references"][0]


def _files(manifest: Path, side: int) -> Iterator[tuple[str, Path]]:
    """(task, path) of the shard files in the bucket `side`."""
    for f in Manifest.read(manifest).files:
        if f.bucket == side:
            yield f.task, manifest.parent / f.path
