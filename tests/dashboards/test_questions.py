"""Questions that would take all memory or time end alone; the dashboard answers on."""

from __future__ import annotations

import time

import httpx
import psutil
import pytest

from benchmarks.browser import served
from dashboards import questions
from flywheel.core.bounded import TooMuch
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

GREEDY = (
    "select length(repeat('x', 1000000000)) + length(repeat('y', 1500000000))",
    "select list(range) from range(1000000000)",
    "select string_agg(repeat('x', 1000000), '') from range(100000)",
    "select repeat('x', 20000000)",
)
ENDLESS = (
    "select count(*) from range(100000) a, range(100000) b where a.range * b.range % 7 = 3",
    "with recursive t as (select 1 n union all select n + 1 from t) select max(n) from t",
)


@pytest.mark.parametrize("query", ENDLESS)
def test_a_query_without_end_is_ended(workspace: Workspace, query: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(questions, "SECONDS", 1.0)
    began = time.monotonic()
    with pytest.raises(TooMuch, match="longer than 1 s"):
        questions.sql(str(workspace.root), query)
    assert time.monotonic() - began < 30
    assert not [c for c in psutil.Process().children(recursive=True) if c.memory_info().rss > 1 << 30]


@pytest.mark.parametrize("query", GREEDY)
def test_a_query_is_limited(workspace: Workspace, query: str):
    began, before = time.monotonic(), psutil.Process().memory_info().rss
    with pytest.raises(UsageError):
        questions.sql(str(workspace.root), query)
    assert time.monotonic() - began < 3 * questions.SECONDS + 30
    assert psutil.Process().memory_info().rss - before < 300 << 20
    assert not [c for c in psutil.Process().children(recursive=True) if c.memory_info().rss > 1 << 30]


def test_answers_are_those_of_the_functions(workspace: Workspace):
    answer = questions.sql(str(workspace.root), "select 40 + 2 as n, date '2026-01-01' as d, [1, 2] as l")
    assert answer.columns == ["n", "d", "l"] and answer.rows[0][0] == 42 and not answer.more
    assert questions.thresholds(str(workspace.root), {})["policy"] == ""
    with pytest.raises(UsageError):
        questions.lineage(str(workspace.root), "no such thing")


def test_other_pages_answer_while_questions_wait(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(questions, "SECONDS", 2.5)
    with served(workspace) as url, httpx.Client(base_url=url, timeout=120) as client:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(6) as pool:
            slow = [pool.submit(httpx.get, f"{url}/sql", params={"q": ENDLESS[0]}, timeout=120) for _ in range(3)]
            time.sleep(0.5)
            began = time.monotonic()
            assert client.get("/cases").status_code == 200 and time.monotonic() - began < 10
            assert not all(answer.done() for answer in slow)
            assert all("longer than" in answer.result().text for answer in slow)
