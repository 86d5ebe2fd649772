"""Lists as files: what is in them, and what cannot be one."""

from __future__ import annotations

import csv
import io
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from dashboards.routes.downloads import write_answer
from flywheel.catalog.database import Answer
from flywheel.core.errors import UsageError

CHOSEN = "capability=typography&sort=prompt"


def test_the_chosen_cases_are_a_file(client: TestClient) -> None:
    listed = client.get(f"/api/cases?{CHOSEN}").json()
    answer = client.get(f"/cases.csv?{CHOSEN}&page=2")
    assert (
        answer.headers["content-type"].startswith("text/csv") and "cases.csv" in answer.headers["content-disposition"]
    )
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(lines) == listed["paging"]["total"] > 0 and {r["capability"] for r in lines} == {"typography"}
    assert [r["prompt"] for r in lines] == sorted(r["prompt"] for r in lines)
    table = pq.read_table(io.BytesIO(client.get(f"/cases.parquet?{CHOSEN}").content))
    assert table["case_id"].to_pylist() == [r["case_id"] for r in lines]
    assert client.get("/cases.csv?sort=colour").status_code == client.get("/cases.csv?within=1").status_code == 404


def test_an_answer_of_sql_is_a_file(client: TestClient) -> None:
    asked = {"q": "select range as n, date '2026-01-01' as d, [range] as l from range(2000)"}
    text = client.get("/sql.csv", params=asked).text
    assert text.splitlines()[:2] == ["n,d,l", "0,2026-01-01,[0]"] and len(text.splitlines()) == 2001
    table = pq.read_table(io.BytesIO(client.get("/sql.parquet", params=asked).content))
    assert table.slice(7, 1).to_pylist() == [{"n": 7, "d": date(2026, 1, 1), "l": [7]}]
    odd = client.get("/sql.csv", params={"q": "select 'a, \"b\"\n' as x, null as y, {'k': ['é']} as z, true as t"}).text
    assert list(csv.reader(io.StringIO(odd)))[1] == ['a, "b"\n', "", '{"k": ["é"]}', "true"]
    for wrong in ("select * from range(100001)", "drop table x", ""):
        assert client.get("/sql.csv", params={"q": wrong}).status_code == 422
    assert client.get("/sql.csv?q=select+1", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_parquet_tells_what_it_cannot_hold(tmp_path: Path) -> None:
    empty = Answer(["a", "b"], [], False)
    write_answer(empty, tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").column_names == ["a", "b"]
    with pytest.raises(UsageError, match="ask for CSV"):
        write_answer(Answer(["a"], [(1,), ("two",)], False), tmp_path / "x.parquet")
