"""Explain one sample: its scores, the verdict of each stage, the filter that stopped it, the sample it duplicates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.scorers.stored import read_scores
from curation.sources import pool
from flywheel.core import lens
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from flywheel.core.storage import read_parquet, read_table
from flywheel.core.workspace import Workspace

_SHORTEST_PREFIX = 4
UNDECIDED = "not decided yet"  # outcome of rows that were ingested, but not curated


def explain(workspace: Workspace, snapshot: str | None, sample: str) -> dict[str, Any]:
    """Everything about the rows named by `sample`: a sample id, its first characters, or (the end of) a source URI.

    What was ingested but not curated yet is `UNDECIDED`. Errors: `UsageError` when nothing matches, or a prefix is
    ambiguous.
    """
    refused = pool.quarantined_at_ingest(workspace)
    decisions: list[dict[str, Any]] = []
    if snapshot is not None:
        folder = workspace.path("snapshots", snapshot)
        refused += read_table(folder / "quarantine.parquet").to_pylist()
        decisions = _decided(workspace, folder / "decisions.parquet", sample)
    refused = [dict(r) for r in dict.fromkeys(tuple(r.items()) for r in refused if _names(sample, r["source_uri"]))]
    if not decisions and not refused:
        return _undecided(workspace, snapshot, sample)
    ids = sorted({d["sample_id"] for d in decisions})
    if len(ids) > 1 and not any(_names(sample, d["source_uri"]) for d in decisions):
        raise UsageError(f"{sample!r} starts {len(ids)} sample ids: give more characters, such as {ids[0][:12]}")
    if snapshot is None or not decisions:
        return {"snapshot": snapshot, "rows": [], "quarantine": refused}
    stages = folder / "stages.parquet"
    record = read_json(workspace.snapshot(snapshot))
    return {
        "snapshot": snapshot,
        "rows": [d | _metadata(workspace, d) | _details(workspace, stages, record, d) for d in decisions],
        "quarantine": refused,
    }


def _undecided(workspace: Workspace, snapshot: str | None, sample: str) -> dict[str, Any]:
    """The rows of the pool that it names, which no snapshot has judged yet. Errors: `UsageError` if there are none."""
    columns = ["sample_id", "source_uri", "source", "task", "width", "height", "caption", "reference_ids"]
    rows = []
    for shard in pool.shards(workspace):
        table = read_table(shard.path, columns)
        table = table.append_column("row", pa.array(range(len(table)), pa.int32()))
        rows += [row | {"shard": shard.key} for row in _matching(table, sample)]
    if not rows:
        where = f"snapshot {snapshot}" if snapshot else "the pool"
        raise UsageError(f"no sample of {where} matches {sample!r}: give a sample id, its start, or a path")
    stopped = {"outcome": UNDECIDED, "stage_reached": None, "filter": None, "score": None, "threshold": None}
    nothing: dict[str, Any] = {"survivor": None, "survivor_uri": None, "stages": [], "scores": {}}
    return {"snapshot": snapshot, "rows": [r | stopped | nothing for r in rows], "quarantine": []}


def _decided(workspace: Workspace, decisions: Path, sample: str) -> list[dict[str, Any]]:
    """The rows of the file that `sample` names."""
    named = "source_uri IN ($whole, $absolute) OR ends_with(source_uri, $part) OR ends_with(source_uri, $member)"
    texts = {"whole": sample, "absolute": str(Path(sample).absolute()), "part": f"/{sample}", "member": f"::{sample}"}
    found: list[dict[str, Any]] = []
    if len(sample) >= _SHORTEST_PREFIX:
        found = _rows_where(workspace, decisions, "starts_with(sample_id, $start)", {"start": sample})
    return found or _rows_where(workspace, decisions, named, texts)


def _rows_where(workspace: Workspace, path: Path, where: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a Parquet file, in its order; read as a stream."""
    source = read_parquet([str(path)], file_row_number="true")
    with lens.connect(workspace) as con:
        query = f"SELECT * EXCLUDE (file_row_number) FROM {source} WHERE {where} ORDER BY file_row_number"
        found: pa.Table = con.sql(query, params=dict(values)).to_arrow_table()
        return found.to_pylist()


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
    shard = _shard(workspace, decision["shard"])
    columns = ["source", "width", "height", "caption", "reference_ids"]
    return read_table(shard.path, columns=columns).slice(decision["row"], 1).to_pylist()[0]


def _shard(workspace: Workspace, key: str) -> pool.Shard:
    """Errors: `UsageError` if the pool has lost it."""
    if (found := next((s for s in pool.shards(workspace) if s.key == key), None)) is None:
        raise UsageError(
            f"the pool has no shard {key} any more, which a snapshot names: `flywheel fsck` says what to do"
        )
    return found


def _details(workspace: Workspace, stages: Path, record: dict[str, Any], decision: dict[str, Any]) -> dict[str, Any]:
    shard, row = decision["shard"], decision["row"]
    listed = _shard(workspace, shard)
    texts = next(s["texts"] for s in record["pool"] if s["shard"] == shard)
    mine = _rows_where(workspace, stages, "shard = $shard AND row = $row", {"shard": shard, "row": row})
    path = [{k: r[k] for k in ("stage", "bucket", "passed", "filter", "score", "threshold")} for r in mine]
    scores: dict[str, Any] = {}
    for name, version in record["scorers"].items():
        scored = workspace.path("scores", f"{name}@{version}", f"{pool.score_key(listed.pack, texts, name)}.parquet")
        table = read_scores(scored, listed).slice(row, 1)
        values = table.drop_columns(["row", "sample_id", "error"]).to_pylist()[0]
        scores |= {f"{name}.{k}": v for k, v in values.items() if not isinstance(v, bytes | list)}
    return {"stages": path, "scores": scores}
