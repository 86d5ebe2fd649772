"""Pre-training remedy: for each targeted capability, retrieve what the pool has, synthesise the rest, shard both."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel.cases.events import Case
from flywheel.remedies.index import CaptionIndex
from flywheel.schema import SHARD, column
from flywheel.signals.pool_suite import PICTURE_EDITING
from flywheel.signals.suite import Prompt
from flywheel.workspace import Workspace, file_digest, read_json, write_json, write_parquet

if TYPE_CHECKING:
    from curation.synthesis import Sample
    from curation.verify import Outcome

NEIGHBOURS = 8  # captions retrieved per case
ROW_GROUP = 64

# Remedies enter behind every stage's filters: they have entry checks of their own.
STAGES = ["S1", "S2", "S3", "S4", "S5", "S6"]


class Layout(NamedTuple):
    """What all rows of one shard file share."""

    bucket: int
    width: int
    height: int
    task: str
    references: int


GENERATED = pa.schema(
    [
        column("sample_id", pa.string(), "SHA-256 of the image bytes, references and instruction"),
        column("round", pa.int32(), "round that asked for it"),
        column("capability", pa.string(), "capability that it serves"),
        column("recipe", pa.string(), "'retrieved', or the generator that made it"),
        column("caption", pa.large_string(), "text condition"),
        column("outcome", pa.string(), "admitted | dropped"),
        column("filter", pa.string(), "entry check that dropped it"),
        column("score", pa.float64(), "the check's value"),
        column("threshold", pa.float64(), "value needed to enter"),
    ]
)


def build(
    workspace: Workspace,
    plan: dict[str, Any],
    cases: Sequence[Case],
    suite: Sequence[Prompt],
    base_manifest: Path,
    *,
    similarity: float,
    progress: Callable[..., None] | None = None,
) -> dict[str, dict[str, int]]:
    """Write the round's remedy shards, their manifest and the table of generated samples.

    Returns {capability: {"retrieved": n, "generated": n, "refused": n}}. Finished work is read, not redone.
    """
    folder = workspace.path("remedies", f"round-{plan['round']:04d}")
    counts_path = folder / "counts.json"
    if counts_path.exists():
        return read_json(counts_path)
    base = read_json(base_manifest)
    side = min(f["bucket"] for f in base["files"])
    index = CaptionIndex.build(captions(base_manifest))
    exclude = frozenset(p.text for p in suite)
    shards: dict[Layout, list[dict[str, Any]]] = {}
    table: list[dict[str, Any]] = []
    counts: dict[str, dict[str, int]] = {}
    for target in (m for m in plan["mix"] if m["track"] != "base"):
        capability, wanted = target["track"], target["samples"]
        prompts = sorted({c.prompt for c in cases if c.capability == capability})
        found = _nearest(index, prompts, similarity)[: wanted // 2]
        kept = _rows_of(base_manifest, found, side, capability)
        refused: list[dict[str, Any]] = []
        samples = _samples(capability, wanted - len(kept), plan, exclude, base_manifest, side, refused)
        made = []
        for sample in itertools.islice(samples, wanted - len(kept)):
            made.append(_shard_row(sample, side, capability))
            if progress:
                progress(len(made), wanted - len(kept), f"samples for {capability}")
        for layout, row, recipe in [*kept, *made]:
            shards.setdefault(layout, []).append(row)
            table.append(_entry(row["caption"], row["sample_id"], capability, plan["round"], recipe))
        table += refused
        counts[capability] = {"retrieved": len(kept), "generated": len(made), "refused": len(refused)}
    _write_shards(folder, shards, plan)
    write_parquet(folder / "generated.parquet", pa.Table.from_pylist(table, schema=GENERATED))
    write_json(counts_path, counts)
    return counts


def captions(manifest: Path) -> list[tuple[str, str]]:
    """(sample_id, caption) of every sample in a snapshot's shards, in a stable order."""
    rows: dict[str, str] = {}
    for f in read_json(manifest)["files"]:
        table = pq.read_table(manifest.parent / f["path"], columns=["sample_id", "caption"])
        rows.update(zip(table["sample_id"].to_pylist(), table["caption"].to_pylist()))
    return sorted(rows.items())


def _nearest(index: CaptionIndex, prompts: Sequence[str], similarity: float) -> list[str]:
    """Sample ids near any of the prompts, best first, each once."""
    best: dict[str, float] = {}
    for cosines, rows in zip(*index.search(prompts, NEIGHBOURS)):
        for cosine, row in zip(cosines, rows):
            if cosine >= similarity:
                best[index.ids[row]] = max(float(cosine), best.get(index.ids[row], -1.0))
    return sorted(best, key=lambda i: (-best[i], i))


def _rows_of(
    manifest: Path, ids: Sequence[str], side: int, capability: str
) -> list[tuple[Layout, dict[str, Any], str]]:
    """The shard rows of these samples in the smallest bucket, under the capability's track."""
    wanted, rows = set(ids), []
    for f in read_json(manifest)["files"]:
        if f["bucket"] != side:
            continue
        table = pq.read_table(manifest.parent / f["path"], filters=[("sample_id", "in", wanted)]) if wanted else None
        layout = Layout(f["bucket"], f["width"], f["height"], f["task"], f["references"])
        rows += (
            [(layout, r | {"track": capability}, "retrieved") for r in table.to_pylist()] if table is not None else []
        )
    return rows


def _samples(
    capability: str,
    count: int,
    plan: dict[str, Any],
    exclude: frozenset[str],
    manifest: Path,
    side: int,
    refused: list[dict[str, Any]],
) -> Iterator[Sample]:
    """Fresh, verified samples for a capability: a generator's, or edits of the pool's pictures; else none.

    What an entry check refuses is appended to `refused`.
    """
    from curation.synthesis import capabilities, synthesise
    from curation.synthesis.photos import photo_edits
    from curation.verify import passed, verify

    def refuse(sample: Sample, outcomes: Sequence[Outcome]) -> None:
        entry = _entry(sample.caption, sample_id(sample), capability, plan["round"], sample.recipe)
        failed = next(o for o in outcomes if not o.passed)
        refused.append(
            entry
            | {"outcome": "dropped", "filter": failed.verifier, "score": failed.score, "threshold": failed.threshold}
        )

    seed = plan["seed"] + plan["round"]
    if capability == PICTURE_EDITING:
        for identity, image in _pictures(manifest, side):
            edits = list(photo_edits(image, seed=f"{seed}-{identity}"))
            for sample, outcomes in zip(edits, verify([e.item for e in edits], [e.checks for e in edits])):
                if passed(outcomes):
                    yield sample
                else:
                    refuse(sample, outcomes)
    elif capability in capabilities():
        yield from synthesise(capability, count, seed=seed, exclude=exclude, on_refused=refuse)


def _pictures(manifest: Path, side: int) -> Iterator[tuple[str, bytes]]:
    """(sample_id, PNG) of the text-to-image rows of the smallest bucket."""
    for f in read_json(manifest)["files"]:
        if f["bucket"] == side and f["task"] == "t2i":
            table = pq.read_table(manifest.parent / f["path"], columns=["sample_id", "image"])
            yield from zip(table["sample_id"].to_pylist(), table["image"].to_pylist())


def sample_id(sample: Sample) -> str:
    """Content hash, by the pool's rule."""
    from curation.ingest import pair_id

    target, *references = (hashlib.sha256(b).hexdigest() for b in (sample.image, *sample.references))
    return pair_id(target, references, sample.caption) if sample.task == "ti2i" else target


def _shard_row(sample: Sample, side: int, capability: str) -> tuple[Layout, dict[str, Any], str]:
    from curation.shards import fit

    row = {
        "sample_id": sample_id(sample),
        "task": sample.task,
        "caption": sample.caption,
        "image": fit(sample.image, side, side),
        "references": [fit(r, side, side) for r in sample.references],
        "track": capability,
        "stream": "synthetic",
        "width": side,
        "height": side,
    }
    return Layout(side, side, side, sample.task, len(sample.references)), row, sample.recipe


def _entry(caption: str, identity: str, capability: str, round_: int, recipe: str) -> dict[str, Any]:
    return {
        "sample_id": identity,
        "round": round_,
        "capability": capability,
        "recipe": recipe,
        "caption": caption,
        "outcome": "admitted",
    }


def _write_shards(folder: Path, shards: dict[Layout, list[dict[str, Any]]], plan: dict[str, Any]) -> None:
    files = []
    for layout, rows in sorted(shards.items()):
        for track in sorted({r["track"] for r in rows}):
            part = [r for r in rows if r["track"] == track]
            path = (
                folder
                / str(layout.bucket)
                / f"{layout.width}x{layout.height}-{layout.task}{layout.references}-{track}.parquet"
            )
            write_parquet(path, pa.Table.from_pylist(part, schema=SHARD), row_group_size=ROW_GROUP)
            files.append(
                {
                    "path": str(path.relative_to(folder)),
                    "sha256": file_digest(path),
                    "bytes": path.stat().st_size,
                    "rows": len(part),
                    "stages": STAGES,
                    "track": track,
                    **layout._asdict(),
                }
            )
    write_json(folder / "manifest.json", {"snapshot": plan["snapshot"], "round": plan["round"], "files": files})
