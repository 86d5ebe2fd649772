"""Score tables hold the scores of the score files and are named by their inputs; balance and verdicts use them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from curation.decide.judge import verdicts
from curation.policy.reader import load_policy
from curation.run import configure, curate
from curation.scorers.stored import score_path
from curation.scorers.table import tables
from curation.sources import pool
from curation.sources.ingest import ingest
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.curation.corpus import textures, tree, write_folder

POLICY = """\
[S1]
resolutions = [64, 96]
enters = ["t2i"]

[S1.filters.size]
score = "header.short_edge"
min = 100
bucket = 96

[S1.filters.balance]
check = "balance"
per = "source"
cap = 3

[S2]
resolutions = [64, 96]
enters = []
"""


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Iterator[SimpleNamespace]:
    """Two batches: five pictures of one source, two of another, the second one's scored later."""
    root = tmp_path_factory.mktemp("tables")
    path = root / "mine.toml"
    path.write_text(POLICY)
    policy, workspace = load_policy(path), Workspace(root / "w")
    files = textures(7)
    first = write_folder(root / "first", dict(list(files.items())[:5]))
    ingest(workspace, first)
    curate(workspace, policy)
    before = tree(workspace.path("tables"))
    ingest(workspace, write_folder(root / "second", dict(list(files.items())[5:])))
    result = curate(workspace, policy)
    yield SimpleNamespace(workspace=workspace, policy=policy, result=result, before=before, path=path)


def test_a_new_batch_leaves_the_tables_of_the_old_one(curated: SimpleNamespace) -> None:
    after = tree(curated.workspace.path("tables"))
    assert curated.before.items() <= after.items() and len(after) == len(curated.before) + 1


def test_tables_hold_pool_and_scores_in_pool_order(curated: SimpleNamespace) -> None:
    scorers, _ = configure(curated.policy)
    shards = pool.shards(curated.workspace)
    rows = [r for path in tables(curated.workspace, scorers) for r in pq.read_table(path).to_pylist()]
    assert [r["shard"] for r in rows] == [s.key for s in shards for _ in range(s.rows)]
    for shard in shards:
        mine = [r for r in rows if r["shard"] == shard.key]
        assert [r["row"] for r in mine] == list(range(shard.rows))
        assert [r["sample_id"] for r in mine] == pq.read_table(shard.path)["sample_id"].to_pylist()
        for scorer in scorers.values():
            for got, want in zip(mine, pq.read_table(score_path(curated.workspace, scorer, shard)).to_pylist()):
                shared = [k for k in want if f"{scorer.name}.{k}" in got]
                assert shared and all(got[f"{scorer.name}.{k}"] == want[k] for k in shared)
    assert all(r["draw"] == int(r["sample_id"][:16], 16) for r in rows)


def test_a_deleted_table_is_written_again_with_the_same_bytes(curated: SimpleNamespace) -> None:
    scorers, _ = configure(curated.policy)
    (path, _) = tables(curated.workspace, scorers)
    data = path.read_bytes()
    path.unlink()
    assert tables(curated.workspace, scorers)[0] == path and path.read_bytes() == data


def test_a_missing_score_file_is_named(curated: SimpleNamespace, tmp_path: Path) -> None:
    scorers, _ = configure(curated.policy)
    (path, _) = tables(curated.workspace, scorers)
    data, shard = path.read_bytes(), pool.shards(curated.workspace)[0]
    lost = score_path(curated.workspace, scorers["pixels"], shard)
    kept = lost.rename(tmp_path / "kept.parquet")
    path.unlink()
    with pytest.raises(UsageError, match="1 score files of pixels are missing .*: `flywheel curate` with"):
        verdicts(curated.workspace, curated.policy, scorers)
    kept.rename(lost)
    path.write_bytes(data)


def test_balance_keeps_the_smallest_ids_of_each_source_and_bucket(curated: SimpleNamespace) -> None:
    workspace, snapshot = curated.workspace, curated.result.snapshot
    rows = pq.read_table(workspace.path("snapshots", snapshot, "stages.parquet")).to_pylist()
    sources = {Path(r["source_uri"]).parent.name for r in rows}
    assert sources == {"first", "second"}
    for bucket in (64, 96):
        for source in sources:
            first = [r for r in rows if (r["stage"], r["bucket"]) == ("S1", bucket)]
            here = [r for r in first if f"/{source}/" in r["source_uri"]]
            kept = sorted(r["sample_id"] for r in here if r["passed"])
            assert kept == sorted(r["sample_id"] for r in here)[:3]
            assert {(r["filter"], r["threshold"]) for r in here if not r["passed"]} <= {("balance", 3.0)}
    later = {r["sample_id"] for r in rows if r["stage"] == "S2" and r["passed"]}
    assert len(later) == 5, "what balance dropped goes no further"


def test_verdicts_agree_with_decisions(curated: SimpleNamespace) -> None:
    scorers, _ = configure(curated.policy)
    evaluation = verdicts(curated.workspace, curated.policy, scorers)
    assert evaluation.funnel.to_pylist() == list(curated.result.funnel)
    cells = [c for c in evaluation.cells.column_names if c != "n"]
    admitted = [row["n"] for row in evaluation.cells.to_pylist() if any(row[c] == 0 for c in cells)]
    assert (evaluation.rows, len(admitted)) == (7, curated.result.admitted)
