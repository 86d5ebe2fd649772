"""The pre-training remedy: retrieve samples from the pool for each targeted capability, generate the rest, and write
the samples that the review accepts as shards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel.cases.events import Case
from flywheel.core.files import file_digest, read_json, write_bytes, write_json, write_parquet
from flywheel.core.records import Manifest, RoundPlan, ShardFile
from flywheel.core.schema import ROW_GROUP, SHARD, STAGES, column, slice_column
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace
from flywheel.presets import Preset
from flywheel.remedies.augment import augment
from flywheel.remedies.buckets import Buckets, first_fitted, refitted, trained
from flywheel.remedies.held_out import NEAR, HeldOut
from flywheel.remedies.index import CaptionIndex
from flywheel.remedies.retrieval import Hit, captions, nearest, pictures, rows_of
from flywheel.remedies.review import Item
from flywheel.signals.pool_suite import PICTURE_EDITING
from flywheel.signals.suite import Prompt

if TYPE_CHECKING:
    from curation.synthesis import Sample
    from curation.verify.checks import Outcome

Row = dict[str, Any]
EVALUATION_PROMPT = "evaluation_prompt"  # name of the decontamination filter

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


class Layout(NamedTuple):
    """What all rows of one shard file share."""

    bucket: int
    width: int
    height: int
    task: str
    references: int


@dataclass(frozen=True)
class Request:
    """What a plan asks of one capability: `samples` new ones for its `cases`."""

    capability: str
    samples: int
    cases: tuple[Case, ...]
    seed: int


@dataclass(frozen=True)
class BasePool:
    """The base pool of a round, as its remedies read it; the caption index is built on first use.

    manifest: of the snapshot's shards; suite: the held-out prompts, which no remedy may say.
    """

    manifest: Path
    suite: Sequence[Prompt]
    preset: Preset

    @cached_property
    def buckets(self) -> Buckets:
        """The buckets that the pool fills and the recipe reads."""
        return trained(self.manifest, self.preset.training.recipe)

    @cached_property
    def index(self) -> CaptionIndex:
        """Vectors of every caption."""
        return CaptionIndex.build(captions(self.manifest))

    @cached_property
    def held_out(self) -> HeldOut:
        """Finds texts near a held-out prompt."""
        return HeldOut(p.text for p in self.suite)

    def scarcity(self, request: Request) -> dict[str, dict[str, float]]:
        """How dense the pool is around the request's cases; empty without cases."""
        if not request.cases:
            return {}
        prompts = {request.capability: sorted({c.prompt for c in request.cases})}
        limits = self.preset.attribution
        return self.index.scarcity(prompts, neighbours=limits.neighbours, sparse=limits.sparse_percentile)


@dataclass(frozen=True)
class Refused:
    """A sample that did not become a candidate: a row of `GENERATED`."""

    row: Row


def collect(
    folder: Path, plan: RoundPlan, cases: Sequence[Case], pool: BasePool, progress: Callable[..., None] | None = None
) -> list[Row]:
    """Write the candidates of a round, the refused samples, and how dense the pool is around the cases.

    Returns a row of the review queue per candidate. Finished work is read, not redone.
    """
    path = folder / "candidates.parquet"
    if not path.exists():
        rows: list[Row] = []
        refused: list[Row] = []
        scarcity: dict[str, dict[str, float]] = {}
        for target in plan.requests:
            served = tuple(c for c in cases if c.capability == target.slice)
            request = Request(target.slice, target.samples or 0, served, plan.seed + plan.round)
            scarcity |= pool.scarcity(request)
            proposed, dropped = _take(request, pool, progress)
            rows += proposed
            refused += [row | {"round": plan.round} for row in dropped]
        write_json(folder / "scarcity.json", scarcity)
        write_json(folder / "buckets.json", pool.buckets)
        write_parquet(folder / "refused.parquet", pa.Table.from_pylist(refused, schema=GENERATED))
        write_parquet(path, pa.Table.from_pylist(rows, schema=CANDIDATE))
    return [
        {"capability": r["slice"], "sample_id": r["sample_id"], "caption": r["caption"], "priority": r["priority"]}
        | {"evidence": {"recipe": r["recipe"], **json.loads(r["evidence"])}}
        for r in _read_candidates(folder, columns=("sample_id", "caption", "recipe", "priority", "evidence"))
    ]


def shard(
    folder: Path, plan: RoundPlan, suite: Sequence[Prompt], reviewed: Mapping[tuple[str, str], Item]
) -> dict[str, dict[str, int]]:
    """Write the accepted candidates as shards with their manifest, and a table of all samples, refused ones too.

    A candidate is written in its own bucket and in every smaller one: all stages train on it.

    reviewed: decided items by (capability, sample_id). Returns {capability: {"retrieved", "generated", "refused",
    "rejected": samples}}. Finished work is read, not redone.
    """
    counts_path = folder / "counts.json"
    if counts_path.exists():
        return read_json(counts_path)
    held_out, buckets = HeldOut(p.text for p in suite), _buckets(folder)
    counts = {m.slice: dict.fromkeys(("retrieved", "generated", "refused", "rejected"), 0) for m in plan.requests}
    table = pq.read_table(readable(folder / "refused.parquet")).to_pylist()
    for r in table:
        counts[r["capability"]]["refused"] += 1
    shards: dict[Layout, list[Row]] = {}
    for row in _read_candidates(folder):
        item = reviewed[row["slice"], row["sample_id"]]
        entry = _entry(item.caption, row["sample_id"], row["slice"], row["recipe"]) | {"round": plan.round}
        if item.outcome != "accepted":
            table.append(entry | {"outcome": "dropped", "filter": "review"})
            counts[row["slice"]]["rejected"] += 1
        elif near := held_out.near(item.caption):  # a reviewer may have edited the caption into a held-out prompt
            table.append(entry | _contaminated(near))
            counts[row["slice"]]["refused"] += 1
        else:
            table.append(entry)
            counts[row["slice"]]["retrieved" if row["recipe"] == "retrieved" else "generated"] += 1
            for bucket in [b for b in buckets if b <= row["bucket"]]:
                fitted = refitted(row, bucket)
                layout = Layout(bucket, fitted["width"], fitted["height"], row["task"], len(row["references"]))
                shards.setdefault(layout, []).append(fitted | {"caption": item.caption})
    _write_shards(folder, shards, plan, buckets)
    write_parquet(folder / "generated.parquet", pa.Table.from_pylist(table, schema=GENERATED))
    write_json(counts_path, counts)
    return counts


def _take(request: Request, pool: BasePool, progress: Callable[..., None] | None) -> tuple[list[Row], list[Row]]:
    """(up to `request.samples` candidates, rows of the samples that were refused before the last of them)."""
    rows: list[Row] = []
    refused: list[Row] = []
    stream = candidates(request, pool)
    while len(rows) < request.samples and (entry := next(stream, None)):
        if isinstance(entry, Refused):
            refused.append(entry.row)
            continue
        rows.append(entry)
        if progress:
            progress(len(rows), request.samples, f"samples for {request.capability}")
    return rows, refused


def candidates(request: Request, pool: BasePool) -> Iterator[Row | Refused]:
    """Candidates for a request, with the refused samples among them: retrieved ones, up to half, then generated ones.

    No candidate says or nearly says a held-out prompt. The stream may be endless: stop reading at `request.samples`.
    """
    hits = nearest(pool.index, request.cases, pool.preset.plan.retrieval_similarity)
    kept: dict[str, Row] = {}
    for entry in _retrieved(request, pool, hits):
        if not isinstance(entry, Refused):
            kept[entry["sample_id"]] = entry
        yield entry
    known = set(kept)
    passed = refused = 0
    for sample in _samples(request, pool, [h.sample_id for h in hits], request.samples - len(kept)):
        if isinstance(sample, Refused):
            refused += 1
            yield sample
            continue
        passed += 1
        doubt = refused / (passed + refused)  # samples of a recipe that often fails its checks need review first
        identity = sample_id(sample)
        if near := pool.held_out.near(sample.caption):
            refused += 1
            yield Refused(_entry(sample.caption, identity, request.capability, sample.recipe) | _contaminated(near))
        elif identity not in known:
            known.add(identity)
            row = first_fitted(sample, identity, pool.buckets)
            yield row | _proposal(request, sample.recipe, doubt, {"cases": len(request.cases)})
    if not passed:  # no generator serves the capability: vary the retrieved samples
        for row in augment(list(kept.values()), seed=str(request.seed)):
            varied = {**row, "sample_id": _identity(row)}
            yield varied | _proposal(request, "augmented", 0.5, {"of": row["sample_id"]})


def _retrieved(request: Request, pool: BasePool, hits: Sequence[Hit]) -> Iterator[Row | Refused]:
    """Samples of the pool near the cases: up to half of the request; all that say a held-out prompt are refused."""
    rows: dict[str, Row] = {}
    for bucket in reversed(pool.buckets):  # each sample where it is largest
        missing = [h.sample_id for h in hits if h.sample_id not in rows]
        rows |= {k: r | {"bucket": bucket} for k, r in rows_of(pool.manifest, missing, bucket).items()}
    limit = pool.preset.plan.retrieval_similarity
    kept = 0
    for hit in (h for h in hits if h.sample_id in rows):
        row = rows[hit.sample_id]
        if near := pool.held_out.near(row["caption"]):
            entry = _entry(row["caption"], hit.sample_id, request.capability, "retrieved")
            yield Refused(entry | _contaminated(near))
        elif kept < request.samples // 2:
            kept += 1
            doubt = min(1.0, (1 - hit.similarity) / max(1e-6, 1 - limit))
            why = {"similarity": round(hit.similarity, 4), "case": hit.case_id}
            yield row | _proposal(request, "retrieved", doubt, why)


def _samples(request: Request, pool: BasePool, first: Sequence[str], count: int) -> Iterator[Sample | Refused]:
    """Fresh samples that passed their entry checks, and the refused ones among them; nothing without a generator.

    first: ids of the pool's pictures that edits start from first.
    """
    from curation.synthesis import capabilities, synthesise
    from curation.synthesis.photos import photo_edits
    from curation.verify.checks import passed, verify

    if request.capability == PICTURE_EDITING:
        for identity, image in pictures(pool.manifest, min(pool.buckets), first):
            edits = list(photo_edits(image, seed=f"{request.seed}-{identity}"))
            for sample, outcomes in zip(edits, verify([e.item for e in edits], [e.checks for e in edits])):
                yield sample if passed(outcomes) else _refused(request, sample, outcomes)
    elif request.capability in capabilities():
        refused: list[Refused] = []
        generated = synthesise(
            request.capability,
            count,
            seed=request.seed,
            exclude=frozenset(pool.held_out.prompts),
            on_refused=lambda sample, outcomes: refused.append(_refused(request, sample, outcomes)),
        )
        for sample in generated:
            yield from refused
            refused.clear()
            yield sample
        yield from refused


def _refused(request: Request, sample: Sample, outcomes: Sequence[Outcome]) -> Refused:
    failed = next(o for o in outcomes if not o.passed)
    return Refused(
        _entry(sample.caption, sample_id(sample), request.capability, sample.recipe)
        | {"outcome": "dropped", "filter": failed.verifier, "score": failed.score, "threshold": failed.threshold}
    )


def sample_id(sample: Sample) -> str:
    """The id that the pool would give the sample: a digest of its content."""
    from curation.sources.ingest import pair_id

    target, *references = (hashlib.sha256(b).hexdigest() for b in (sample.image, *sample.references))
    return pair_id(target, references, sample.caption) if sample.task == "ti2i" else target


def _identity(row: Mapping[str, Any]) -> str:
    parts = [hashlib.sha256(b).hexdigest() for b in (row["image"], *row["references"])]
    return hashlib.sha256("\n".join([*parts, row["caption"]]).encode()).hexdigest()


def _buckets(folder: Path) -> Buckets:
    """`BasePool.buckets` when the candidates were made; earlier versions made them in one bucket, for all stages."""
    path = folder / "buckets.json"
    if path.exists():
        return {int(bucket): tuple(stages) for bucket, stages in read_json(path).items()}
    return {row["bucket"]: STAGES for row in _read_candidates(folder, columns=("bucket",))}


def _proposal(request: Request, recipe: str, priority: float, evidence: Mapping[str, Any]) -> Row:
    """The columns that make a shard row a candidate."""
    columns = {"slice": request.capability, "recipe": recipe, "priority": priority}
    return columns | {"evidence": json.dumps(evidence)}


def _read_candidates(folder: Path, columns: Sequence[str] | None = None) -> list[Row]:
    """The candidates of a round: these columns and `slice`, or all columns. Workspaces of format 1 are read too."""
    path = folder / "candidates.parquet"
    name = slice_column(pq.read_schema(readable(path)).names)
    rows = pq.read_table(readable(path), columns=[*columns, name] if columns else None).to_pylist()
    return [row | {"slice": row[name]} for row in rows]


def _entry(caption: str, identity: str, capability: str, recipe: str) -> Row:
    """An admitted row of `GENERATED`."""
    row = {"sample_id": identity, "capability": capability, "recipe": recipe, "caption": caption}
    return row | {"outcome": "admitted"}


def _contaminated(near: tuple[str, float]) -> Row:
    return {"outcome": "dropped", "filter": EVALUATION_PROMPT, "score": near[1], "threshold": NEAR}


def _write_shards(folder: Path, shards: Mapping[Layout, list[Row]], plan: RoundPlan, buckets: Buckets) -> None:
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
                    stages=buckets[layout.bucket],  # remedies have entry checks instead of a stage's filters
                    slice=slice_,
                    **layout._asdict(),
                )
            )
    Manifest(snapshot=plan.snapshot, round=plan.round, files=tuple(files)).write(folder / "manifest.json")


def picture_of(workspace: Workspace, item: Item) -> list[Path]:
    """PNG files of a candidate's picture and its references, for people to open; written on first use."""
    folder = workspace.round(item.round).remedies
    path = folder / "candidates.parquet"
    name = slice_column(pq.read_schema(readable(path)).names)
    columns, match = ["image", "references"], [("sample_id", "==", item.sample_id), (name, "==", item.capability)]
    row = pq.read_table(readable(path), columns=columns, filters=match).to_pylist()[0]
    paths = []
    for n, data in enumerate([row["image"], *row["references"]]):
        paths.append(folder / "review" / f"{item.item}{f'-reference-{n}' if n else ''}.png")
        if not paths[-1].exists():
            write_bytes(paths[-1], data)
    return paths
