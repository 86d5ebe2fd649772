"""Yields of sources and licences add up to the counts of the snapshot."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dashboards.sources import MOST, load_sources
from flywheel.catalog.database import query
from flywheel.core.files import write_json, write_parquet
from flywheel.core.ledger import Ledger
from flywheel.core.schema import POOL
from flywheel.core.workspace import Workspace


def test_each_row_of_the_snapshot_counts_once(workspace: Workspace) -> None:
    seen = load_sources(workspace)
    assert {y.name: y.input for y in seen.sources} == {"cards": 200, "photos": 100}
    assert sum(y.admitted for y in seen.sources) == 225 and sum(y.dropped for y in seen.sources) == 75
    for y in seen.sources:
        assert y.input == y.admitted + y.dropped == sum(y.stages.values()) + sum(y.reasons.values())
        assert list(y.reasons.values()) == sorted(y.reasons.values(), reverse=True)
    whole = query(workspace, "SELECT filter, count(*) AS n FROM decisions WHERE filter IS NOT NULL GROUP BY filter")
    assert {r["filter"]: r["n"] for r in whole} == {
        f: sum(y.reasons.get(f, 0) for y in seen.sources) for f in ("resolution", "exact_duplicate", "entropy")
    }
    (unknown,) = seen.licences
    assert (unknown.name, unknown.input, unknown.stages) == (None, 300, {"S3": 225})
    assert (seen.all_sources, seen.all_licences, seen.quarantined) == (2, 1, 12)


def test_licences_come_from_the_scored_pool(curated: Workspace) -> None:
    seen = load_sources(curated)
    assert sum(y.input for y in seen.licences) == sum(y.input for y in seen.sources) == 6
    (source,) = seen.sources
    assert (source.name, source.admitted, source.stages) == ("src", 6, {"S2": 1, "S6": 5}), "the small one stays in S2"
    assert [y.name for y in seen.licences] == [None]


def test_many_sources_are_cut_off_by_their_rows_and_an_erasure_is_seen(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    ids = [f"{n}-{k}" for n in range(MOST + 5) for k in range(1 + (n >= 5))]
    pool = [{"sample_id": i, "source_uri": i, "source": f"source {i.split('-')[0]}", "task": "t2i"} for i in ids]
    write_parquet(workspace.path("pool", "b", "0.parquet"), pa.Table.from_pylist(pool, schema=POOL))
    write_json(workspace.path("pool", "b", "manifest.json"), {"shards": [{"path": "0.parquet", "rows": len(ids)}]})
    decided = {"stage_reached": "S1", "outcome": "dropped", "filter": "entropy", "score": 1.0, "threshold": 3.0}
    decided |= {"survivor": None, "survivor_uri": None, "shard": "b-0", "row": 0}
    path = workspace.snapshot("s" * 64, "decisions")
    write_parquet(path, pa.Table.from_pylist([{"sample_id": i, "source_uri": i} | decided for i in ids]))
    counts = {"input": len(ids), "admitted": 0, "dropped": len(ids), "quarantined": 0}
    Ledger(workspace, "snapshots").append([{"snapshot": "s" * 64, "policy": "p", "manifest": "m"} | counts], key="s")
    seen = load_sources(workspace)
    assert (len(seen.sources), seen.all_sources) == (MOST, MOST + 5)
    assert {y.input for y in seen.sources} == {2}, "those with one row are left out"
    write_parquet(path, pq.read_table(path).slice(0, 1))
    assert load_sources(workspace).all_sources == 1


def test_an_empty_workspace_has_none(empty: Workspace) -> None:
    assert load_sources(empty).snapshot is None
