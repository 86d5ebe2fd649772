"""Pre-training remedy: per targeted capability, retrieve what the pool has and synthesise the rest; a review decides
what of it enters the shards.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel.cases.events import Case
from flywheel.core.files import file_digest, read_json, write_bytes, write_json, write_parquet
from flywheel.core.records import Manifest, RoundPlan, ShardFile
from flywheel.core.schema import ROW_GROUP, SHARD, STAGES, column
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace
from flywheel.presets import Preset
from flywheel.remedies.augment import augment
from flywheel.remedies.held_out import NEAR, HeldOut
from flywheel.remedies.index import CaptionIndex
from flywheel.remedies.retrieval import Layout, captions, nearest, pictures, rows_of
from flywheel.remedies.review import Item
from flywheel.signals.pool_suite import PICTURE_EDITING
from flywheel.signals.suite import Prompt

if TYPE_CHECKING:
    from curation.synthesis import Sample
    from curation.verify.checks import Outcome

EVALUATION_PROMPT = "evaluation_prompt"  # the decontamination filter's name

GENERATED = pa.schema(
    [
        column("sample_id", pa.string(), "SHA-256 of the image bytes, references and instruction"),
        column("round", pa.int32(), "round that asked for it"),
        column("capability", pa.string(), "capability that it serves"),
        column("recipe", pa.string(), "'retrieved', 'augmented', or the generator that made it"),
        column("caption", pa.large_string(), "text condition"),
        column("outcome", pa.string(), "admitted | dropped"),
        column("filter", pa.string(), "entry check, 'evaluation_prompt' or 'review': what dropped it"),
        column("score", pa.float64(), "the check's value"),
        column("threshold", pa.float64(), "value needed to enter"),
    ]
)

CANDIDATE = pa.schema(
    [
        *SHARD,
        column("bucket", pa.int32(), "resolution bucket, pixels"),
        column("recipe", pa.string(), "as in GENERATED"),
        column("priority", pa.float64(), "uncertainty in [0, 1]: what a reviewer should see first"),
        column("evidence", pa.large_string(), "JSON: why it is a candidate"),
    ]
)


@dataclass(frozen=True)
class Request:
    """One capability's share of the plan."""

    capability: str
    wanted: int
    cases: tuple[Case, ...]
    seed: int


def collect(
    folder: Path,
    plan: RoundPlan,
    cases: Sequence[Case],
    suite: Sequence[Prompt],
    base_manifest: Path,
    *,
    preset: Preset,
    progress: Callable[..., None] | None = None,
) -> list[dict[str, Any]]:
    """Write the round's candidates and what was refused; returns a review-queue row per candidate.

    Finished work is read, not redone. `scarcity.json` says per capability how dense the pool is around its cases.
    """
    path = folder / "candidates.parquet"
    if not path.exists():
        side = min(f.bucket for f in Manifest.read(base_manifest).files)
        index = CaptionIndex.build(captions(base_manifest))
        held_out = HeldOut(p.text for p in suite)
        found: list[dict[str, Any]] = []
        refused: list[dict[str, Any]] = []
        scarcity: dict[str, dict[str, float]] = {}
        for target in plan.requests:
            name = target.slice
            mine = tuple(c for c in cases if c.capability == name)
            request = Request(name, target.samples or 0, mine, plan.seed + plan.round)
            if mine:
                prompts = {name: sorted({c.prompt for c in mine})}
                limits = preset.attribution
                scarcity |= index.scarcity(prompts, neighbours=limits.neighbours, sparse=limits.sparse_percentile)
            made = _candidates(request, index, base_manifest, side, preset.plan.retrieval_similarity, held_out, refused)
            for n, row in enumerate(itertools.islice(made, request.wanted), 1):
                found.append(row)
                if progress:
                    progress(n, request.wanted, f"samples for {name}")
        write_json(folder / "scarcity.json", scarcity)
        rows = [r | {"round": plan.round} for r in refused]
        write_parquet(folder / "refused.parquet", pa.Table.from_pylist(rows, schema=GENERATED))
        write_parquet(path, pa.Table.from_pylist(found, schema=CANDIDATE))
    columns = ["sample_id", "caption", "slice", "recipe", "priority", "evidence"]
    return [
        {"capability": r["slice"], "sample_id": r["sample_id"], "caption": r["caption"], "priority": r["priority"]}
        | {"evidence": {"recipe": r["recipe"], **json.loads(r["evidence"])}}
        for r in pq.read_table(readable(path), columns=columns).to_pylist()
    ]


def shard(
    folder: Path, plan: RoundPlan, suite: Sequence[Prompt], reviewed: Mapping[tuple[str, str], Item]
) -> dict[str, dict[str, int]]:
    """Write the accepted candidates as shards, their manifest, and the table of everything that was made.

    `reviewed`: decided items by (capability, sample_id). Returns {capability: {"retrieved": n, "generated": n,
    "refused": n, "rejected": n}}. Finished work is read, not redone.
    """
    counts_path = folder / "counts.json"
    if counts_path.exists():
        return read_json(counts_path)
    held_out = HeldOut(p.text for p in suite)
    counts = {m.slice: dict.fromkeys(("retrieved", "generated", "refused", "rejected"), 0) for m in plan.requests}
    table = pq.read_table(readable(folder / "refused.parquet")).to_pylist()
    for r in table:
        counts[r["capability"]]["refused"] += 1
    shards: dict[Layout, list[dict[str, Any]]] = {}
    for row in pq.read_table(readable(folder / "candidates.parquet")).to_pylist():
        item = reviewed[row["slice"], row["sample_id"]]
        entry = _entry(item.caption, row["sample_id"], row["slice"], row["recipe"]) | {"round": plan.round}
        if item.outcome != "accepted":
            table.append(entry | {"outcome": "dropped", "filter": "review"})
            counts[row["slice"]]["rejected"] += 1
        elif near := held_out.near(item.caption):  # an edited caption can come to say an evaluation prompt
            table.append(entry | _contaminated(near))
            counts[row["slice"]]["refused"] += 1
        else:
            table.append(entry)
            counts[row["slice"]]["retrieved" if row["recipe"] == "retrieved" else "generated"] += 1
            layout = Layout(*(row[k] for k in ("bucket", "width", "height", "task")), len(row["references"]))
            shards.setdefault(layout, []).append({k: row[k] for k in SHARD.names} | {"caption": item.caption})
    _write_shards(folder, shards, plan)
    write_parquet(folder / "generated.parquet", pa.Table.from_pylist(table, schema=GENERATED))
    write_json(counts_path, counts)
    return counts


def _candidates(
    request: Request,
    index: CaptionIndex,
    manifest: Path,
    side: int,
    similarity: float,
    held_out: HeldOut,
    refused: list[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Candidate rows of one capability: at most half of them retrieved, then made. None says an evaluation prompt."""
    hits = nearest(index, request.cases, similarity)
    rows = rows_of(manifest, [h.sample_id for h in hits], side)
    kept: list[tuple[Layout, dict[str, Any]]] = []
    known: set[str] = set()
    for hit in (h for h in hits if h.sample_id in rows):
        layout, row = rows[hit.sample_id]
        if near := held_out.near(row["caption"]):
            entry = _entry(row["caption"], hit.sample_id, request.capability, "retrieved")
            refused.append(entry | _contaminated(near))
        elif len(kept) < request.wanted // 2:
            kept.append((layout, row))
            known.add(hit.sample_id)
            doubt = min(1.0, (1 - hit.similarity) / max(1e-6, 1 - similarity))
            why = {"similarity": round(hit.similarity, 4), "case": hit.case_id}
            yield _candidate(layout, row, request.capability, "retrieved", doubt, why)
    tried, failed = 0, len(refused)
    first = [h.sample_id for h in hits]
    for sample in _samples(request, request.wanted - len(kept), held_out, manifest, side, first, refused):
        tried += 1
        doubt = (len(refused) - failed) / (tried + len(refused) - failed)  # what often fails its checks is doubtful
        identity = sample_id(sample)
        if near := held_out.near(sample.caption):
            refused.append(_entry(sample.caption, identity, request.capability, sample.recipe) | _contaminated(near))
        elif identity not in known:
            known.add(identity)
            layout, row = _fitted(sample, identity, side)
            why = {"cases": len(request.cases)}
            yield _candidate(layout, row, request.capability, sample.recipe, doubt, why)
    if not tried and kept:  # nothing makes such samples: the pool's own, varied
        layouts = {row["sample_id"]: layout for layout, row in kept}
        for row in augment([row for _, row in kept], seed=str(request.seed)):
            varied = row | {"sample_id": _identity(row)}
            why = {"of": row["sample_id"]}
            yield _candidate(layouts[row["sample_id"]], varied, request.capability, "augmented", 0.5, why)


def _samples(
    request: Request,
    count: int,
    held_out: HeldOut,
    manifest: Path,
    side: int,
    first: Sequence[str],
    refused: list[dict[str, Any]],
) -> Iterator[Sample]:
    """Fresh, verified samples for a capability: a generator's, or edits of the pool's pictures; else none.

    What an entry check refuses is appended to `refused`.
    """
    from curation.synthesis import capabilities, synthesise
    from curation.synthesis.photos import photo_edits
    from curation.verify.checks import passed, verify

    def refuse(sample: Sample, outcomes: Sequence[Outcome]) -> None:
        failed = next(o for o in outcomes if not o.passed)
        refused.append(
            _entry(sample.caption, sample_id(sample), request.capability, sample.recipe)
            | {"outcome": "dropped", "filter": failed.verifier, "score": failed.score, "threshold": failed.threshold}
        )

    if request.capability == PICTURE_EDITING:
        for identity, image in pictures(manifest, side, first):
            edits = list(photo_edits(image, seed=f"{request.seed}-{identity}"))
            for sample, outcomes in zip(edits, verify([e.item for e in edits], [e.checks for e in edits])):
                if passed(outcomes):
                    yield sample
                else:
                    refuse(sample, outcomes)
    elif request.capability in capabilities():
        exclude = frozenset(held_out.prompts)
        yield from synthesise(request.capability, count, seed=request.seed, exclude=exclude, on_refused=refuse)


def sample_id(sample: Sample) -> str:
    """Content hash, by the pool's rule."""
    from curation.sources.ingest import pair_id

    target, *references = (hashlib.sha256(b).hexdigest() for b in (sample.image, *sample.references))
    return pair_id(target, references, sample.caption) if sample.task == "ti2i" else target


def _identity(row: Mapping[str, Any]) -> str:
    parts = [hashlib.sha256(b).hexdigest() for b in (row["image"], *row["references"])]
    return hashlib.sha256("\n".join([*parts, row["caption"]]).encode()).hexdigest()


def _fitted(sample: Sample, identity: str, side: int) -> tuple[Layout, dict[str, Any]]:
    from curation.shards.layout import layout
    from curation.shards.writer import fit
    from flywheel.core.image import open_image

    found = open_image(sample.image)
    width, height = layout(found.width, found.height, side)
    kind = "instruction" if sample.references else sample.kind
    row = {
        "sample_id": identity,
        "task": sample.task,
        "caption": sample.caption,
        "image": fit(sample.image, width, height),
        "references": [fit(r, width, height) for r in sample.references],
        "stream": "synthetic",
        "width": width,
        "height": height,
        "source_width": found.width,
        "source_height": found.height,
        "captions": [{"kind": kind, "text": sample.caption, "origin": "source"}],
    }
    return Layout(side, width, height, sample.task, len(sample.references)), row


def _candidate(
    layout: Layout, row: Mapping[str, Any], capability: str, recipe: str, priority: float, evidence: Mapping[str, Any]
) -> dict[str, Any]:
    more = {"slice": capability, "recipe": recipe, "priority": priority, "evidence": json.dumps(evidence)}
    return {**row, "bucket": layout.bucket, **more}


def _entry(caption: str, identity: str, capability: str, recipe: str) -> dict[str, Any]:
    made = {"sample_id": identity, "capability": capability, "recipe": recipe, "caption": caption}
    return made | {"outcome": "admitted"}


def _contaminated(near: tuple[str, float]) -> dict[str, Any]:
    return {"outcome": "dropped", "filter": EVALUATION_PROMPT, "score": near[1], "threshold": NEAR}


def _write_shards(folder: Path, shards: dict[Layout, list[dict[str, Any]]], plan: RoundPlan) -> None:
    files = []
    for layout, rows in sorted(shards.items()):
        for slice_ in sorted({r["slice"] for r in rows}):
            part = [r for r in rows if r["slice"] == slice_]
            name = f"{layout.width}x{layout.height}-{layout.task}{layout.references}-{slice_}.parquet"
            path = folder / str(layout.bucket) / name
            write_parquet(path, pa.Table.from_pylist(part, schema=SHARD), row_group_size=ROW_GROUP)
            files.append(
                ShardFile(
                    path=str(path.relative_to(folder)),
                    sha256=file_digest(path),
                    bytes=path.stat().st_size,
                    rows=len(part),
                    stages=STAGES,  # behind every stage's filters: remedies have entry checks of their own
                    slice=slice_,
                    **layout._asdict(),
                )
            )
    Manifest(snapshot=plan.snapshot, round=plan.round, files=tuple(files)).write(folder / "manifest.json")


def picture_of(workspace: Workspace, item: Item) -> list[Path]:
    """The candidate's picture and its references as files that a person can open, written when first asked for."""
    folder = workspace.round(item.round).remedies
    columns, match = ["image", "references"], [("sample_id", "==", item.sample_id), ("slice", "==", item.capability)]
    row = pq.read_table(readable(folder / "candidates.parquet"), columns=columns, filters=match).to_pylist()[0]
    paths = []
    for n, data in enumerate([row["image"], *row["references"]]):
        paths.append(folder / "review" / f"{item.item}{f'-reference-{n}' if n else ''}.png")
        if not paths[-1].exists():
            write_bytes(paths[-1], data)
    return paths
