"""Views are there on any workspace, and cases are the fold of their events."""

from pathlib import Path

import pytest

from flywheel import catalog
from flywheel.cases.events import detect, event, fold, load_cases, retest
from flywheel.ledger import Ledger
from flywheel.workspace import UsageError, Workspace
from tests.flywheel.test_cases import signal


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def test_every_documented_view_answers_on_an_empty_workspace(workspace: Workspace):
    for row in catalog.documentation():
        assert catalog.query(workspace, f"select * from {row['view']}") == []


def test_sql_fold_equals_python_fold(workspace: Workspace):
    ledger = Ledger(workspace, "case_events")
    detected = detect([signal(p, "count", False) for p in "abc"], {}, 1)
    ledger.append(detected, key="detect/1")
    known = load_cases(workspace)
    ledger.append([event(c, 1, "routed", {}, track="rl") for c in known.values()], key="route/1")
    ledger.append([event(c, 2, "remedied", {}) for c in load_cases(workspace).values()], key="remedy/2")
    results = {("a", "count"): True, ("b", "count"): False}
    ledger.append(retest(results, load_cases(workspace), 2), key="retest/2")
    rows = {r["prompt_id"]: r for r in catalog.query(workspace, "select * from cases")}
    assert {p: r["status"] for p, r in rows.items()} == {"a": "closed", "b": "re-opened", "c": "remedied"}
    assert {r["track"] for r in rows.values()} == {"rl"}
    assert rows["a"]["fixed_in"] == 2 and rows["b"]["fixed_in"] is None
    folded = fold(ledger.rows())
    assert {c.prompt_id: c.is_open for c in folded.values()} == {"a": False, "b": True, "c": True}
    assert {r["case_id"] for r in rows.values()} == folded.keys()


def test_appending_twice_under_one_key_records_once(workspace: Workspace):
    ledger = Ledger(workspace, "case_events")
    rows = detect([signal("a", "count", False)], {}, 1)
    assert ledger.append(rows, key="k") and not ledger.append(rows, key="k")
    assert len(ledger.rows()) == 1 and ledger.has("k") and not ledger.has("other")


def test_export_holds_every_view_and_is_readable_by_any_client(workspace: Workspace, tmp_path: Path):
    import duckdb

    path = catalog.export(workspace, tmp_path / "out.duckdb")
    with duckdb.connect(str(path), read_only=True) as con:
        names = {r[0] for r in con.execute("select table_name from duckdb_tables()").fetchall()}
    assert names == {r["view"] for r in catalog.documentation()}


@pytest.mark.parametrize("statement", ["selec 1", "select * from nowhere", "select 1; select 2", "attach 'x.db'"])
def test_bad_sql_is_the_users_to_fix(workspace: Workspace, statement: str):
    with pytest.raises(UsageError):
        catalog.query(workspace, statement)
