"""Ready queries answer on empty and on filled workspaces."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from curation.sources.ingest import ingest
from flywheel.cases.events import case_id, detect
from flywheel.catalog import database as catalog
from flywheel.catalog.queries import ready
from flywheel.catalog.views import BULK
from flywheel.core.files import write_json, write_parquet
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, write_folder
from tests.flywheel.cases.builders import signal


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def test_ready_queries_answer(workspace: Workspace):
    assert all(catalog.query(workspace, q.sql) == [] for q in ready().values())
    Ledger(workspace, "signals").append([signal(p, "count", p == "a") for p in "abc"], key="s")
    Ledger(workspace, "case_events").append(detect([signal("b", "count", False)], {}, 1), key="d")
    result = {"fixed": [case_id("b", "count")], "broken": [case_id("z", "count")]}
    Ledger(workspace, "rounds").append([{"round": 2, "result": json.dumps(result)}], key="r")
    answers = {name: catalog.query(workspace, q.sql) for name, q in ready().items()}
    (rate,) = answers["failure_rate"]
    assert (rate["prompts"], rate["failures"], rate["failure_rate"]) == (3, 2, 0.6667)
    changes = {r["capability"]: (r["fixed"], r["broken"]) for r in answers["fixed_and_broken"]}
    assert changes == {"count": (1, 0), "never failed before": (0, 1)}
    assert [(r["status"], r["cases"]) for r in answers["open_cases"]] == [("detected", 1)]


def decided(workspace: Workspace, snapshot: str, rows: list[tuple[str, str, str | None]]) -> None:
    """A snapshot with these decisions: (sample id, address, filter that dropped it)."""
    columns = ("sample_id", "source_uri", "filter")
    table = pa.Table.from_pylist([dict(zip(columns, row)) for row in rows])
    outcomes = ["dropped" if filter_ else "admitted" for _, _, filter_ in rows]
    nothing = {f.name: pa.nulls(len(rows), f.type) for f in BULK["decisions"][1] if f.name not in (*columns, "outcome")}
    table = table.set_column(2, "filter", table["filter"].cast(pa.string())).append_column("outcome", [outcomes])
    for name, values in nothing.items():
        table = table.append_column(name, values)
    write_parquet(workspace.snapshot(snapshot, "decisions"), table)
    write_json(workspace.snapshot(snapshot), {"snapshot": snapshot})
    row = {"snapshot": snapshot, "policy": "p", "manifest": "shards/m.json"}
    Ledger(workspace, "snapshots").append([row], key=snapshot)


def test_a_filter_that_drops_nothing_for_a_while_changed_twice(workspace: Workspace):
    for snapshot, filter_ in (("a", "entropy"), ("b", None), ("c", "entropy")):
        decided(workspace, snapshot, [("1", "x", filter_), ("2", "y", "size")])
    found = catalog.query(workspace, ready()["drop_reasons_over_time"].sql)
    assert [(r["snapshot"], r["rows"], r["change"]) for r in found if r["filter"] == "entropy"] == [
        ("a", 1, 1), ("b", 0, -1), ("c", 1, 1)]  # fmt: skip
    assert [r["change"] for r in found if r["filter"] == "size"] == [1, 0, 0]


def test_a_picture_of_two_sources_counts_for_the_source_of_each_row(tmp_path: Path, workspace: Workspace):
    picture = {"a.png": encoded(texture(1, 60, 60))}
    for source in ("first", "second"):
        ingest(workspace, write_folder(tmp_path / source, picture))
    samples = catalog.query(workspace, "select * from samples order by source")
    assert len({r["sample_id"] for r in samples}) == 1
    ends = {"first": None, "second": "deduplication"}
    decided(workspace, "a", [(r["sample_id"], r["source_uri"], ends[r["source"]]) for r in samples])
    found = catalog.query(workspace, ready()["source_survival"].sql)
    assert [(r["source"], r["rows"], r["admitted"]) for r in found] == [("second", 1, 0), ("first", 1, 1)]
