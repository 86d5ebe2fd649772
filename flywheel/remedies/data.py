"""The pre-training remedy: collect candidates for each targeted capability, and shard those that review accepts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel.cases.events import Case
from flywheel.core.files import file_digest, read_json, write_bytes, write_json, write_parquet
from flywheel.core.records import Manifest, RoundPlan, ShardFile
from flywheel.core.schema import ROW_GROUP, SHARD, STAGES, slice_column
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace
from flywheel.remedies.buckets import Buckets, refitted
from flywheel.remedies.candidates import CANDIDATE, GENERATED, BasePool, Request, Row, contaminated, generated_row, take
from flywheel.remedies.held_out import HeldOut
from flywheel.remedies.review import Item
from flywheel.signals.suite import Prompt


class Layout(NamedTuple):
    """What all rows of one shard file share."""

    bucket: int
    width: int
    height: int
    task: str
    references: int


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
            proposed, dropped = take(request, pool, progress)
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
        entry = generated_row(item.caption, row["sample_id"], row["slice"], row["recipe"]) | {"round": plan.round}
        if item.outcome != "accepted":
            table.append(entry | {"outcome": "dropped", "filter": "review"})
            counts[row["slice"]]["rejected"] += 1
        elif near := held_out.near(item.caption):  # a reviewer may have edited the caption into a held-out prompt
            table.append(entry | contaminated(near))
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


def _buckets(folder: Path) -> Buckets:
    """`BasePool.buckets` when the candidates were made; earlier versions made them in one bucket, for all stages."""
    path = folder / "buckets.json"
    if path.exists():
        return {int(bucket): tuple(stages) for bucket, stages in read_json(path).items()}
    return {row["bucket"]: STAGES for row in _read_candidates(folder, columns=("bucket",))}


def _read_candidates(folder: Path, columns: Sequence[str] | None = None) -> list[Row]:
    """The candidates of a round: these columns and `slice`, or all columns. Workspaces of format 1 are read too."""
    path = folder / "candidates.parquet"
    name = slice_column(pq.read_schema(readable(path)).names)
    rows = pq.read_table(readable(path), columns=[*columns, name] if columns else None).to_pylist()
    return [row | {"slice": row[name]} for row in rows]


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
