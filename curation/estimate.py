"""What curating a source would read, score and write, and what that would cost: a few pictures are measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq

from curation.policy.policy import Policy
from curation.policy.what_if import basis, written
from curation.run import configure
from curation.scorers import load, scoring
from curation.shards.fit import fit
from curation.shards.layout import layout
from curation.sources import BadInput, Input, Source, open_source, pool
from curation.sources.listing import compared, input_of, listing
from curation.sources.urls.store import Store
from flywheel.core import weights
from flywheel.core.erased import erased_images
from flywheel.core.errors import UsageError
from flywheel.core.image import BadImage, open_image, upright_size
from flywheel.core.lens import latest_snapshot
from flywheel.core.scorer import Item
from flywheel.core.storage import readable
from flywheel.core.text import untold
from flywheel.core.workspace import Workspace

SAMPLE = 12  # pictures that are measured
_ADMITTED = 1.0  # share of rows that are assumed to be admitted: the estimate is an upper bound


@dataclass(frozen=True)
class Estimate:
    """An estimate: numbers of inputs, rows and bytes; cpu_seconds of scoring and sharding; wall_seconds on `workers`.

    read: bytes of new inputs; write: bytes of the pool and of all shards; measured: pictures that were measured.
    notes: what cannot be known before everything is read, in sentences.
    """

    inputs: int
    new: int
    refused: int
    uncaptioned: int
    read_bytes: int
    to_score: int
    scorers: tuple[str, ...]
    not_configured: tuple[str, ...]
    write_bytes: int
    cpu_seconds: float
    wall_seconds: float
    measured: int
    notes: tuple[str, ...] = ()


def estimate(
    workspace: Workspace | None,
    sources: Sequence[str | Path],
    captions: Path | None,
    policy: Policy,
    *,
    workers: int = 2,
) -> Estimate:
    """Estimate without writing anything. workspace: None before there is one. Errors: `UsageError` as `ingest`."""
    store = Store(workspace) if workspace else None
    counts, news = list[int](), list[tuple[Source, list[Input]]]()
    seen = set[tuple[str | int, ...]]()  # sources may overlap
    for source in (open_source(s, captions, store) for s in sources):
        count, listed = _listed(workspace, source)
        new = [i for i in listed if i.key not in seen]
        seen |= {i.key for i in new} if len(sources) > 1 else set()
        counts.append(count)
        news.append((source, new))
    fresh = [i for _, group in news for i in group]
    usable = [i for i in fresh if i.fault is None]
    scorers, reasons = configure(policy, weights.obtain(policy.scorer_values()))
    options = {name: dict(policy.scorers.get(name, {})) for name in scorers}
    waiting = sum(s.rows for s, _ in scoring.pending(workspace, options)) if workspace else 0
    pictures = _sample(news) or (_pooled(workspace) if workspace and waiting else [])
    buckets = sorted({b for s in policy.stages for b in s.resolutions})
    seconds, size = _measured(pictures, options, buckets)
    rows = len(usable) + waiting
    cpu, shards = rows * seconds, _ADMITTED * rows * size
    changed = _changed(workspace, policy) if workspace and not waiting else {}
    pooled = _pooled(workspace) if workspace and changed else []
    for bucket, (entering, admitted) in changed.items():  # files in which a row came or went are written anew
        seconds, size = _measured(pooled, {}, [bucket], enlarged=True)
        cpu, shards = cpu + entering * seconds, shards + admitted * size
    return Estimate(
        inputs=sum(counts),
        new=len(fresh),
        refused=len(fresh) - len(usable),
        uncaptioned=sum(untold(i.caption) and i.task == "t2i" for i in usable),
        read_bytes=sum(i.size for i in usable),
        to_score=rows,
        scorers=tuple(scorers),
        not_configured=tuple(f"{name}: {why}" for name, why in reasons.items()),
        write_bytes=round(sum(i.size for i in usable) + shards),
        cpu_seconds=round(cpu, 3),
        wall_seconds=round(cpu / workers, 3),
        measured=len(pictures) or len(pooled),
        notes=_unknown(workspace) if workspace and usable else (),
    )


def _unknown(workspace: Workspace) -> tuple[str, ...]:
    """An erased picture at another address is known by its bytes alone."""
    erased = len(erased_images(workspace))
    if not erased:
        return ()
    return (
        f"whether an erased picture is among the new inputs shows only when they are read ({erased} erased): such ones"
        " are refused then, and quarantined",
    )


def _changed(workspace: Workspace, policy: Policy) -> dict[int, tuple[int, int]]:
    """Bucket → (rows of the pool to encode, rows to write) where the latest snapshot has others."""
    if not pool.shards(workspace):
        return {}
    try:
        before = basis(workspace, snapshot) if (snapshot := latest_snapshot(workspace)) else None
    except UsageError:  # it was written before policies were kept
        before = None
    return written(workspace, before, policy)


def _listed(workspace: Workspace | None, source: Source) -> tuple[int, list[Input]]:
    """(number of inputs, new inputs) of a source."""
    if workspace is None:
        inputs = source.inputs()
        return len(inputs), inputs
    with listing(source) as (path, count), compared(workspace, path, count) as found:
        return count, [input_of(row) for batch in found.fresh_rows() for row in batch.to_pylist()]


def _sample(sources: Sequence[tuple[Source, Sequence[Input]]]) -> list[tuple[bytes, str]]:
    """Up to `SAMPLE` readable pictures, evenly spread over the sources, with their captions."""
    usable = [(source, i) for source, inputs in sources for i in inputs if i.fault is None]
    step = max(1, len(usable) // SAMPLE)
    chosen = [(source, i) for source, i in usable[::step] if i.task == "t2i"][:SAMPLE]
    contents = [(i, content) for source, i in chosen for content in source.read([i])]
    return [(c, i.caption) for i, c in contents if not isinstance(c, BadInput) and _opens(c)]


def _pooled(workspace: Workspace) -> list[tuple[bytes, str]]:
    """The first pictures of the pool that are to be scored again."""
    table = pq.read_table(readable(pool.shards(workspace)[0].path), columns=["image", "caption"]).slice(0, SAMPLE)
    return [(r["image"], r["caption"]) for r in table.to_pylist()]


def _opens(data: bytes) -> bool:
    try:
        open_image(data)
    except BadImage:
        return False
    return True


def _measured(
    pictures: Sequence[tuple[bytes, str]],
    options: dict[str, dict[str, Any]],
    buckets: Sequence[int],
    *,
    enlarged: bool = False,
) -> tuple[float, float]:
    """(CPU-seconds, bytes of shards) per picture; the first picture loads the networks and is not counted.

    enlarged: also for buckets that are larger than the picture.
    """
    if not pictures:
        return 0.0, 0.0
    loaded = [load(name, **o) for name, o in options.items()]
    seconds, sizes = [], []
    for data, caption in (pictures[0], *pictures):
        began, item = time.process_time(), Item(data, caption)
        for scorer in loaded:
            scorer.score([item])
        try:
            width, height = upright_size(open_image(data))
            shards = [fit(data, *layout(width, height, b)) for b in buckets if enlarged or b <= max(width, height)]
        except BadImage:
            shards = []
        seconds.append(time.process_time() - began)
        sizes.append(sum(map(len, shards)))
    return median(seconds[1:]), sum(sizes[1:]) / len(pictures)
