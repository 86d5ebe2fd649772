"""A sample explained by its id, its first characters, or its file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from curation.decide.explain import UNDECIDED, explain
from curation.sources.ingest import ingest
from flywheel.catalog.database import query
from flywheel.catalog.queries import ready
from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, write_folder
from tests.curation.world import by_file
from tests.flywheel.cli.command import flywheel


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def test_explain(curated: SimpleNamespace) -> None:
    workspace, snapshot = curated.workspace, curated.result.snapshot
    explanation = explain(workspace, snapshot, "noise.png")
    (row,) = explanation["rows"]
    assert (row["filter"], row["stages"][-1]["filter"]) == ("entropy", "entropy")
    assert row["scores"]["pixels.entropy"] == row["score"]
    json.dumps(explanation)
    assert explain(workspace, snapshot, row["sample_id"])["rows"] == explanation["rows"]
    assert explain(workspace, snapshot, row["sample_id"][:10])["rows"] == explanation["rows"]
    assert len(explain(workspace, snapshot, by_file(curated, "decisions")["large.png"]["sample_id"])["rows"]) == 2
    assert explain(workspace, snapshot, "empty.jpg")["quarantine"][0]["reason"] == "zero bytes"
    with pytest.raises(UsageError, match="matches"):
        explain(workspace, snapshot, "nothing-like-it")


def test_a_batch_that_the_pool_has_lost_is_one_sentence(curated: SimpleNamespace, tmp_path: Path) -> None:
    shutil.copytree(curated.workspace.root, tmp_path / "copy")
    workspace = Workspace(tmp_path / "copy")
    for batch in workspace.batches():
        (batch / "manifest.json").unlink()
    with pytest.raises(UsageError, match="the pool has no shard .* any more.* `flywheel fsck` says what to do"):
        explain(workspace, curated.result.snapshot, "noise.png")


def test_it_answers_from_the_first_ingest_on(workspace: Workspace, tmp_path: Path) -> None:
    files = {"a.png": encoded(texture(0)), "broken.png": b"<html>"}
    ingest(workspace, write_folder(tmp_path / "src", files, {"a.png": "a"}))
    (row,) = explain(workspace, None, "a.png")["rows"]
    assert (row["outcome"], row["caption"], row["stages"]) == (UNDECIDED, "a", [])
    assert explain(workspace, None, row["sample_id"][:8])["rows"] == [row]
    (refused,) = explain(workspace, None, "broken.png")["quarantine"]
    assert "HTML" in refused["reason"] or "not an image" in refused["reason"]
    with pytest.raises(UsageError, match="no sample of the pool matches 'b.png'"):
        explain(workspace, None, "b.png")
    told = flywheel("explain", "a.png", "-w", workspace.root)
    assert told.returncode == 0 and UNDECIDED in told.stdout
    assert [r["source_uri"] for r in query(workspace, "select * from quarantine")] == [refused["source_uri"]]


def test_what_was_ingested_after_the_last_snapshot_is_known_too(curated: SimpleNamespace, tmp_path: Path) -> None:
    workspace = Workspace(shutil.copytree(curated.workspace.root, tmp_path / "w"))
    row = {"snapshot": curated.result.snapshot, "policy": "demo", "manifest": "shards", "input": 0}
    Ledger(workspace, "snapshots").append([row], key="1")
    before = query(workspace, "select count(*) as n from quarantine")[0]["n"]
    assert before == curated.result.quarantined
    files = {"new.png": encoded(texture(99)), "broken.png": b"<html>"}
    ingest(workspace, write_folder(tmp_path / "more", files, {"new.png": "new"}))
    assert explain(workspace, curated.result.snapshot, "new.png")["rows"][0]["outcome"] == UNDECIDED
    assert query(workspace, "select count(*) as n from quarantine")[0]["n"] == before + 1
    decided = "select count(*) as n from all_decisions where snapshot = "
    kept = curated.result.admitted + curated.result.dropped
    assert query(workspace, f"{decided}'{curated.result.snapshot}'")[0]["n"] == kept
    assert query(workspace, "select sum(rows) as n from (" + ready()["drop_reasons_over_time"].sql + ")")[0]["n"] == (
        curated.result.dropped
    )
    shards = query(workspace, "select count(distinct sample_id) as n, min(caption) as text from shard_rows")
    assert 0 < shards[0]["n"] <= curated.result.admitted
