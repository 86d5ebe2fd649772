"""What curating a source would read, score and write, and what that would cost: a few pictures are measured."""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq

from curation.decide.judge import judge
from curation.decide.judging import HeldOut
from curation.policy.policy import Policy
from curation.run import configure
from curation.scorers import load, scoring
from curation.shards.fit import fit
from curation.shards.layout import layout
from curation.shards.plan import planned
from curation.sources import BadInput, Input, Source, open_source, pool
from curation.sources.corrections import corrected_before, corrections
from curation.sources.listing import compared, input_of, listing
from curation.sources.urls.store import Store
from flywheel.core import lens, weights
from flywheel.core.erased import erased_images
from flywheel.core.files import read_json
from flywheel.core.image import BadImage, open_image, upright_size
from flywheel.core.scorer import Item, Scorer
from flywheel.core.storage import readable
from flywheel.core.text import untold
from flywheel.core.workspace import Workspace

SAMPLE = 12  # pictures that are measured
_ADMITTED = 1.0  # share of rows that are assumed to be admitted: the estimate is an upper bound


@dataclass(frozen=True)
class Estimate:
    """An estimate: numbers of inputs, rows and bytes; cpu_seconds of scoring and sharding; wall_seconds on `workers`.

    read: bytes of new inputs; write: bytes of the pool and of shards; measured: pictures that were measured. captions:
    known inputs whose captions are new. shard_files: to write, None where the decisions wait for scores or captions.
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
    captions: int = 0
    shard_files: int | None = None
    notes: tuple[str, ...] = ()


def estimate(
    workspace: Workspace | None,
    sources: Sequence[str | Path],
    captions: Path | None,
    policy: Policy,
    *,
    workers: int = 2,
) -> Estimate:
    """Estimate; only score tables, a cache, are written. workspace: None before there is one.

    Errors: `UsageError` as `ingest`.
    """
    store = Store(workspace) if workspace else None
    counts, news, corrected = list[int](), list[tuple[Source, list[Input]]](), set[str]()
    seen = set[tuple[str | int, ...]]()  # sources may overlap
    for source in (open_source(s, captions, store) for s in sources):
        count, there, told = _listed(workspace, source)
        new = [i for i in there if i.key not in seen]
        seen |= {i.key for i in new} if len(sources) > 1 else set()
        counts.append(count)
        news.append((source, new))
        corrected.update(told)
    fresh = [i for _, group in news for i in group]
    usable = [i for i in fresh if i.fault is None]
    scorers, reasons = configure(policy, weights.obtain(policy.scorer_values()))
    options = {name: dict(policy.scorers.get(name, {})) for name in scorers}
    waiting = sum(s.rows for s, _ in scoring.pending(workspace, options)) if workspace else 0
    pictures = _sample(news) or (_pooled(workspace) if workspace and waiting else [])
    buckets = sorted({b for s in policy.stages for b in s.resolutions})
    seconds, written = _measured(pictures, options, buckets)
    rows = len(usable) + waiting
    cpu, shards = rows * seconds, rows * written
    again, unseen = None, list[str]()
    if workspace and workspace.batches() and not rows and not corrected:
        again = _again(workspace, policy, scorers)
        if again is None:
            unseen.append("the workspace is read-only: how many shard files this policy writes cannot be told")
        elif again.files:
            pictures = _pooled(workspace)
            cpu, shards = _writing(again, pictures)
    return Estimate(
        inputs=sum(counts),
        new=len(fresh),
        refused=len(fresh) - len(usable),
        uncaptioned=sum(untold(i.caption) and i.task == "t2i" for i in usable),
        read_bytes=sum(i.size for i in usable),
        to_score=rows,
        scorers=tuple(scorers),
        not_configured=tuple(f"{name}: {why}" for name, why in reasons.items()),
        write_bytes=round(sum(i.size for i in usable) + _ADMITTED * shards),
        cpu_seconds=round(cpu, 3),
        wall_seconds=round(cpu / workers, 3),
        measured=len(pictures),
        captions=len(corrected),
        shard_files=again.files if again else None,
        notes=(*_unknown(workspace, usable), *_changing(corrected), *unseen) if workspace else (),
    )


@dataclass(frozen=True)
class _Again:
    """Shard files that are written where everything is scored: their number, rows by bucket, and rows to encode."""

    files: int
    rows: Mapping[int, int]
    encodes: int


def _writing(again: _Again, pictures: Sequence[tuple[bytes, str]]) -> tuple[float, float]:
    """(CPU-seconds, bytes) of writing these files: rows that another file holds are copied."""
    each = {bucket: _measured(pictures, {}, [bucket], enlarged=True) for bucket in again.rows}
    seconds, written = (sum(again.rows[b] * each[b][n] for b in each) for n in (0, 1))
    return seconds * again.encodes / sum(again.rows.values()), written


def _again(workspace: Workspace, policy: Policy, scorers: Mapping[str, Scorer]) -> _Again | None:
    """What is written of a pool that is scored; what is held out is as in the latest snapshot.

    None in a read-only workspace that lacks a table of this policy.
    """
    latest = lens.latest_snapshot(workspace)
    evaluation = workspace.path("snapshots", latest, "evaluation.json") if latest else None
    held_out = HeldOut.from_record(read_json(evaluation)) if evaluation and evaluation.exists() else HeldOut()
    try:
        judged = judge(workspace, policy, scorers, held_out)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return None
    with planned(workspace, judged.path("admitted")) as plan:
        missing = [f for f in plan.files if f.path in plan.missing]
        rows = Counter[int]()
        for file in missing:
            rows[file.bucket] += file.rows
        return _Again(len(missing), rows, plan.encodes)


def _changing(corrected: Collection[str]) -> tuple[str, ...]:
    """What new captions change is known only when they are scored."""
    if not corrected:
        return ()
    return (
        f"captions of {len(corrected)} known inputs are new: scorers that read captions run again on their shards, and"
        " shard files with these rows are written again",
    )


def _unknown(workspace: Workspace, usable: Sequence[Input]) -> tuple[str, ...]:
    """An erased picture at another address is known by its bytes alone."""
    erased = len(erased_images(workspace)) if usable else 0
    if not erased:
        return ()
    return (
        f"whether an erased picture is among the new inputs shows only when they are read ({erased} erased): such ones"
        " are refused then, and quarantined",
    )


def _listed(workspace: Workspace | None, source: Source) -> tuple[int, list[Input], Collection[str]]:
    """(number of inputs, new inputs, addresses of known ones with new captions) of a source."""
    if workspace is None:
        inputs = source.inputs()
        return len(inputs), inputs, ()
    with listing(source) as (path, count), compared(workspace, path, count) as found:
        told = corrections(workspace, found.told_otherwise(corrected_before(workspace)))
        there = {row["source_uri"] for row in pool.rows_of(workspace, told, "task") if row["task"] == "t2i"}
        return count, [input_of(row) for batch in found.fresh_rows() for row in batch.to_pylist()], there


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
