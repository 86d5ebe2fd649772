"""What the pool has near the cases: samples to show more often, prompts to generalise, instruction–image pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from flywheel.cases.events import Case
from flywheel.core.records import Manifest
from flywheel.core.storage import readable
from flywheel.remedies.index import CaptionIndex

NEIGHBOURS = 8  # captions retrieved per case


class Layout(NamedTuple):
    """What all rows of one shard file share."""

    bucket: int
    width: int
    height: int
    task: str
    references: int


@dataclass(frozen=True)
class Hit:
    """A pool sample near a case."""

    sample_id: str
    similarity: float  # cosine of its caption and the case's prompt
    case_id: str


def captions(manifest: Path) -> list[tuple[str, str]]:
    """(sample_id, caption) of every sample in a snapshot's shards, in a stable order."""
    rows: dict[str, str] = {}
    for f in Manifest.read(manifest).files:
        table = pq.read_table(readable(manifest.parent / f.path), columns=["sample_id", "caption"])
        rows.update(zip(table["sample_id"].to_pylist(), table["caption"].to_pylist()))
    return sorted(rows.items())


def nearest(index: CaptionIndex, cases: Sequence[Case], similarity: float) -> list[Hit]:
    """Samples near any of the cases, best first, each once, under the case that it is nearest to."""
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


def rows_of(manifest: Path, ids: Sequence[str], side: int) -> dict[str, tuple[Layout, dict[str, Any]]]:
    """{sample_id: (layout, shard row)} of these samples in the bucket `side`."""
    found = {}
    for layout, path in _files(manifest, side):
        for row in pq.read_table(readable(path), filters=[("sample_id", "in", set(ids))]).to_pylist() if ids else ():
            found[row["sample_id"]] = (layout, row)
    return found


def pictures(manifest: Path, side: int, first: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """(sample_id, PNG) of the pictures that edits can start from: those in `first`, in its order, then the others.

    A text-to-image row gives its picture, an edit pair its first reference: the base image of a known instruction.
    """
    order = {identity: n for n, identity in enumerate(first)}
    found = []
    for layout, path in _files(manifest, side):
        ids = pq.read_table(readable(path), columns=["sample_id"])["sample_id"].to_pylist()
        found += [(order.get(i, len(order)), i, path, layout.task, n) for n, i in enumerate(ids)]
    read = lru_cache(maxsize=2)(lambda path: pq.read_table(readable(path), columns=["image", "references"]))
    for _, identity, path, task, n in sorted(found, key=lambda f: (f[0], f[3], str(f[2]), f[4])):
        row = read(path).slice(n, 1).to_pylist()[0]
        if task == "t2i" or row["references"]:
            yield identity, row["image"] if task == "t2i" else row["references"][0]


def _files(manifest: Path, side: int) -> Iterator[tuple[Layout, Path]]:
    for f in Manifest.read(manifest).files:
        if f.bucket == side:
            yield Layout(f.bucket, f.width, f.height, f.task, f.references), manifest.parent / f.path
