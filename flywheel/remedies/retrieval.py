"""Retrieval of pool samples near the cases: samples to show more often, captions to generalise, pictures to edit."""

from __future__ import annotations

import itertools
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
from flywheel.remedies.picture_index import PictureIndex

NEIGHBOURS = 8  # captions retrieved per case


@dataclass(frozen=True)
class Hit:
    """A pool sample near a case."""

    sample_id: str
    similarity: float  # cosine of its caption and the case's prompt, or of its picture and one of the case
    case_id: str
    by: str = "caption"  # or picture: what is near


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
    """Samples whose captions are near any of the cases, best first; each once, with the case nearest to it.

    similarity: the smallest cosine that counts as near.
    """
    by_prompt = {c.prompt: c.case_id for c in sorted(cases, key=lambda c: c.case_id)}
    prompts = sorted(by_prompt)
    found = index.search(prompts, NEIGHBOURS) if prompts else ()
    return _best(index.ids, [by_prompt[p] for p in prompts], found, similarity, "caption")


def alike(
    index: PictureIndex,
    cases: Sequence[Case],
    shown: Sequence[tuple[str, bytes]],
    *,
    similarity: float,
    text_similarity: float,
) -> list[Hit]:
    """Samples whose pictures are near a picture of a case, best first; each once.

    shown: (case id, encoded picture): a case's references, and what is known to show what it asks for. Where the index
    reads words, the prompts are queries too, with `text_similarity` as the least cosine: it is lower between words and
    pictures than between pictures.
    """
    vectors = index.vectors
    found = vectors.search([picture for _, picture in shown], NEIGHBOURS) if shown else ()
    hits = _best(vectors.ids, [case for case, _ in shown], found, similarity, "picture")
    if index.texts and cases:
        asked = sorted(cases, key=lambda c: c.case_id)
        count = min(NEIGHBOURS, len(vectors.ids))
        found = vectors.index.search(index.texts([c.prompt for c in asked]), count)
        hits += _best(vectors.ids, [c.case_id for c in asked], found, text_similarity, "picture")
    return list({h.sample_id: h for h in reversed(hits)}.values())[::-1]


def alternate(first: Sequence[Hit], second: Sequence[Hit]) -> list[Hit]:
    """Hits of both lists in turn, each sample once."""
    pairs = itertools.zip_longest(first, second)
    unique: dict[str, Hit] = {}
    for hit in (h for pair in pairs for h in pair if h):
        unique.setdefault(hit.sample_id, hit)
    return list(unique.values())


def _best(ids: Sequence[str], cases: Sequence[str], found: Any, similarity: float, by: str) -> list[Hit]:
    """Hits above `similarity`, best first; each sample once. found: (cosines, rows), [Q, count], of the cases."""
    best: dict[str, Hit] = {}
    for case, cosines, rows in zip(cases, *found) if found else ():
        for cosine, row in zip(cosines, rows):
            hit = Hit(ids[row], float(cosine), case, by)
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


def pictures(manifest: Path, sides: Sequence[int], first: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """(sample_id, PNG or JPEG) of the pictures that edits can start from, each in the largest of these buckets.

    Samples in `first` come first, in its order. A text-to-image row gives its picture, an edit pair its first
    reference: the picture before a known edit.
    """
    order = {identity: n for n, identity in enumerate(first)}
    places: dict[str, tuple[int, str, str, int, str, Path]] = {}
    for side in sorted(sides):
        for task, path in _files(manifest, side):
            ids = pq.read_table(readable(path), columns=["sample_id"])["sample_id"].to_pylist()
            places |= {i: (order.get(i, len(order)), task, str(path), n, i, path) for n, i in enumerate(ids)}
    read = lru_cache(maxsize=2)(lambda path: pq.read_table(readable(path), columns=["image", "references"]))
    for _, task, _, n, identity, path in sorted(places.values(), key=lambda place: place[:4]):
        row = read(path).slice(n, 1).to_pylist()[0]
        if task == "t2i" or row["references"]:
            yield identity, row["image"] if task == "t2i" else row["references"][0]


def _files(manifest: Path, side: int) -> Iterator[tuple[str, Path]]:
    """(task, path) of the shard files in the bucket `side`."""
    for f in Manifest.read(manifest).files:
        if f.bucket == side:
            yield f.task, manifest.parent / f.path
