"""Explain one sample: its scores, the verdict of each stage, the filter that stopped it, the sample it duplicates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.sources import pool
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace

_SHORTEST_PREFIX = 4


def explain(workspace: Workspace, snapshot: str | None, sample: str) -> dict[str, Any]:
    """Everything about the rows named by `sample`: a sample id, its first characters, or (the end of) a source URI.

    Errors: `UsageError` when there is no snapshot, nothing matches, or a prefix is ambiguous.
    """
    if snapshot is None:
        raise UsageError("nothing has been curated in this workspace yet: run `flywheel run` first")
    folder = workspace.path("snapshots", snapshot)
    quarantine = pq.read_table(readable(folder / "quarantine.parquet")).to_pylist()
    refused = [r for r in quarantine if _names(sample, r["source_uri"])]
    decisions = _matching(pq.read_table(readable(folder / "decisions.parquet")), sample)
    if not decisions and not refused:
        raise UsageError(f"no sample of snapshot {snapshot} matches {sample!r}: give a sample id, its start, or a path")
    ids = sorted({d["sample_id"] for d in decisions})
    if len(ids) > 1 and not any(_names(sample, d["source_uri"]) for d in decisions):
        raise UsageError(f"{sample!r} starts {len(ids)} sample ids: give more characters, such as {ids[0][:12]}")
    stages = pq.read_table(readable(folder / "stages.parquet"))
    record = read_json(workspace.snapshot(snapshot))
    return {
        "snapshot": snapshot,
        "rows": [d | _metadata(workspace, d) | _details(workspace, stages, record, d) for d in decisions],
        "quarantine": refused,
    }


def _matching(decisions: pa.Table, sample: str) -> list[dict[str, Any]]:
    by_id = pc.starts_with(decisions["sample_id"], sample) if len(sample) >= _SHORTEST_PREFIX else None
    if by_id is not None and pc.any(by_id).as_py():
        return decisions.filter(by_id).to_pylist()
    mask = pa.array([_names(sample, uri) for uri in decisions["source_uri"].to_pylist()], pa.bool_())
    return decisions.filter(mask).to_pylist()


def _names(sample: str, uri: str) -> bool:
    """Is `sample` this URI, the same file, or its last path parts?"""
    return uri in (sample, str(Path(sample).absolute())) or uri.endswith((f"/{sample}", f"::{sample}"))


def _metadata(workspace: Workspace, decision: dict[str, Any]) -> dict[str, Any]:
    shard = next(s for s in pool.shards(workspace) if s.key == decision["shard"])
    columns = ["source", "width", "height", "caption", "reference_ids"]
    return pq.read_table(readable(shard.path), columns=columns).slice(decision["row"], 1).to_pylist()[0]


def _details(
    workspace: Workspace, stages: pa.Table, record: dict[str, Any], decision: dict[str, Any]
) -> dict[str, Any]:
    shard, row = decision["shard"], decision["row"]
    texts = next(s["texts"] for s in record["pool"] if s["shard"] == shard)
    mine = stages.filter(pc.and_(pc.equal(stages["shard"], shard), pc.equal(stages["row"], row)))
    path = mine.select(["stage", "bucket", "passed", "filter", "score", "threshold"]).to_pylist()
    scores: dict[str, Any] = {}
    for name, version in record["scorers"].items():
        scored = workspace.path("scores", f"{name}@{version}", f"{pool.score_key(shard, texts, name)}.parquet")
        table = pq.read_table(readable(scored)).slice(row, 1)
        values = table.drop_columns(["row", "sample_id", "error"]).to_pylist()[0]
        scores |= {f"{name}.{k}": v for k, v in values.items() if not isinstance(v, bytes | list)}
    return {"stages": path, "scores": scores}
