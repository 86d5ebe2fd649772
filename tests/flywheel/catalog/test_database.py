"""Views are there on any workspace, and cases are the fold of their events."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.decide.judge import judge
from curation.run import configure
from curation.sources.ingest import ingest
from flywheel.cases import fold as case_fold
from flywheel.cases.events import detect, event, load_cases, retest
from flywheel.catalog import database as catalog
from flywheel.catalog.queries import ready
from flywheel.core import lens
from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from tests.curation import one_stage
from tests.curation.corpus import encoded, texture, write_folder
from tests.flywheel.cases.builders import signal

ENTROPY = '[S1.filters.entropy]\nscore = "pixels.entropy"\nmin = 1\n'


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def test_every_documented_view_answers_on_an_empty_workspace(workspace: Workspace):
    for row in catalog.documentation():
        assert catalog.query(workspace, f"select * from {row['view']}") == []


def test_the_kept_fold_changes_no_answer(workspace: Workspace):
    """Whatever came before and after it, and though compaction replaces the files that it folds."""
    ledger = Ledger(workspace, "case_events")
    everything = "select * from cases order by case_id"
    steps = [
        lambda: detect([signal(p, "count", False) for p in "abcd"], {}, 1),
        lambda: [event(c, 1, "routed", {}, track="rl") for c in load_cases(workspace).values()],
        lambda: retest({("a", "count"): True, ("b", "count"): False}, load_cases(workspace), 2),
        lambda: detect([signal("e", "count", False)], load_cases(workspace), 1),
        lambda: retest({("a", "count"): False, ("e", "count"): True}, load_cases(workspace), 3),
    ]
    kept: list[Path] = []
    for number, step in enumerate(steps):
        ledger.append(step(), key=f"step/{number}")
        behind = catalog.query(workspace, everything)
        for path in kept:
            path.rename(path.with_suffix(".aside"))
        assert behind == catalog.query(workspace, everything)
        for path in kept:
            path.with_suffix(".aside").rename(path)
        if number in (1, 3):
            catalog.keep_cases(workspace)
            kept = sorted(workspace.path("derived").glob("cases-*.parquet"))
            assert catalog.query(workspace, everything) == behind
    assert len(kept) == 2 and {r["status"] for r in behind} == {"routed", "re-opened", "closed"}
    assert ledger.compact() == len(steps)
    assert catalog.query(workspace, everything) == behind
    # It is what is read, not a bystander.
    newest = catalog.keep_cases(workspace)
    pq.write_table(pq.read_table(newest).slice(0, 1), newest)
    assert len(catalog.query(workspace, everything)) == 1


def test_what_is_recorded_while_the_fold_is_kept_is_not_lost(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    """Before the files are listed, and after."""
    ledger = Ledger(workspace, "case_events")
    ledger.append(detect([signal("a", "count", False)], {}, 1), key="a")

    def meanwhile(owner: object, name: str, prompt: str, *, before: bool) -> None:
        real = getattr(owner, name)

        def function(*arguments: object, **options: object) -> object:
            monkeypatch.setattr(owner, name, real)
            result = None if before else real(*arguments, **options)
            ledger.append(detect([signal(prompt, "count", False)], {}, 1), key=prompt)
            return real(*arguments, **options) if before else result

        monkeypatch.setattr(owner, name, function)

    meanwhile(lens, "connect", "b", before=False)
    meanwhile(case_fold, "keep", "c", before=True)
    assert catalog.keep_cases(workspace) and len(ledger.rows()) == 3
    assert [r["prompt_id"] for r in catalog.query(workspace, "select prompt_id from cases order by all")] == list("abc")


@pytest.mark.slow
def test_asked_from_standard_input(workspace: Workspace):
    asked = "select 1 as one;\nselect nope;\n.no_such\n.queries\nselect 2\n as two"
    command = [sys.executable, "-m", "flywheel.cli", "sql", "-w", str(workspace.root), "--json"]
    out = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=60)
    first, questions, last = map(json.loads, out.stdout.splitlines())
    assert (first, last, len(questions)) == ([{"one": 1}], [{"two": 2}], len(ready()))
    assert "nope" in out.stderr and "no ready query 'no_such'" in out.stderr and out.returncode == 0


def test_export_holds_every_view_and_is_readable_by_any_client(workspace: Workspace, tmp_path: Path):
    import duckdb

    path = catalog.export(workspace, tmp_path / "out.duckdb")
    with duckdb.connect(str(path), read_only=True) as con:
        names = {r[0] for r in con.execute("select table_name from duckdb_tables()").fetchall()}
        silent = con.execute(
            "select column_name from duckdb_columns() where comment is null and not internal"
        ).fetchall()
    assert names == {r["view"] for r in catalog.documentation()}
    assert not silent


@pytest.mark.parametrize("statement", ["selec 1", "select * from nowhere", "select 1; select 2", "attach 'x.db'"])
def test_bad_sql_is_the_users_to_fix(workspace: Workspace, statement: str):
    with pytest.raises(UsageError):
        catalog.query(workspace, statement)
    with pytest.raises(UsageError, match="`flywheel tables` lists the views"):
        catalog.query(workspace, "select * from nowhere")


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('{secret}')",
        "select * from read_csv('{secret}')",
        "select * from '{secret}'",
        "select * from glob('{folder}/*')",
        "select * from read_parquet('{folder}/*.parquet')",
        "copy (select 1) to '{folder}/out.csv'",
        "explain analyze copy (select 1) to '{folder}/out.csv'",
        "attach '{folder}/x.db'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "pragma database_list",
        "create table t as select 1",
        "select 1; select 2",
        "with recursive r(n) as (select 1 union all select n + 1 from r) select max(n) from r",
        "select count(*) from range(100000000000) a, range(100000000) b",
        "select string_agg(repeat('x', 1000000)) from range(100000)",
        "select * from secret_table",
    ],
)
def test_a_stranger_reads_the_views_and_nothing_else(workspace: Workspace, tmp_path: Path, sql: str):
    secret_table = [{"secret": 1}]  # noqa: F841 - what DuckDB would find in Python
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n1,2\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError):
        catalog.ask(workspace, sql.format(secret=secret, folder=tmp_path), rows=10, seconds=0.5)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_strangers_question_is_answered(workspace: Workspace):
    Ledger(workspace, "case_events").append(detect([signal(p, "count", False) for p in "abc"], {}, 1), key="d")
    catalog.keep_cases(workspace)
    Ledger(workspace, "case_events").append(detect([signal("z", "count", False)], {}, 1), key="e")
    answer = catalog.ask(workspace, "select prompt_id from cases order by all", rows=3, seconds=30)
    assert (answer.columns, answer.rows, answer.more) == (["prompt_id"], [("a",), ("b",), ("c",)], True)


def test_scores_have_every_column_and_rights_stay_with_the_rows(tmp_path: Path):
    workspace, rule = Workspace(tmp_path / "w"), one_stage.policy(tmp_path, ENTROPY)
    files = {f"{n}.png": encoded(texture(n, 60, 60)) for n in range(3)}
    ingest(workspace, write_folder(tmp_path / "src", files, {"0.png": {"caption": "a b", "license": "CC0-1.0"}}))
    assert catalog.query(workspace, "select * from scores") == []
    one_stage.scored(workspace, rule)
    judge(workspace, rule, configure(rule)[0])
    rows = catalog.query(workspace, "select * from scores order by source_uri")
    assert [r["license"] for r in rows] == ["CC0-1.0", None, None]
    assert [r["text.token_length"] for r in rows] == [2, None, None]
    assert all(r["pixels.entropy"] > 1 and r["header.short_edge"] == 60 for r in rows) and rows[0]["ocr.turn"] is None
    assert {f.name for f in catalog.views.BULK["scores"][1]} <= rows[0].keys()
    assert catalog.export(workspace, tmp_path / "a.duckdb").exists()


def test_an_export_to_a_folder_that_cannot_be_made_is_one_sentence_and_not_remembered(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    with pytest.raises(UsageError, match="cannot be written .*: pass another place"):
        catalog.export(workspace, Path("/proc/none/x.duckdb"))
    assert Ledger(workspace, "exports").rows() == []
