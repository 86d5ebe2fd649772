"""Ledgers: each key once, compaction, and writers that race or lose an answer."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks.faulty_s3 import faulty
from flywheel.catalog import database as catalog
from flywheel.core.files import file_digest
from flywheel.core.ledger import Ledger
from flywheel.core.storage import located
from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck
from tests.flywheel.core.test_storage import signals


def test_ledgers_and_views(s3: str):
    workspace = Workspace(f"{s3}/my w #1?")
    ledger = Ledger(workspace, "case_events")
    assert not ledger.exists() and ledger.files() == [] and not ledger.has("a")
    for number in range(3):
        assert ledger.append(signals(1, number), key=f"k{number}")
    assert not ledger.append(signals(2, 0), key="k0") and ledger.has("k0")
    counts = catalog.query(workspace, "select count(*) as n, count(distinct case_id) as cases from case_events")
    assert counts == [{"n": 3, "cases": 3}]
    assert ledger.compact() == 3 and len(ledger.files()) == 1 and ledger.table().num_rows == 3
    assert ledger.vacuum(hours=0) == 3 and ledger.table().num_rows == 3
    assert file_digest(located(ledger.files()[0])) in ledger.files()[0]


def test_what_is_acknowledged_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The record of the rows before the commit, and the commit before its own record."""
    ledger, synced = Ledger(Workspace(tmp_path / "w"), "case_events"), list[str]()
    ledger.append(signals(1, 0), key="a")
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda n: synced.append(os.readlink(f"/proc/self/fd/{n}")) or real(n))
    ledger.append(signals(1, 1), key="b")
    assert [Path(name).suffix or Path(name).name for name in synced] == [".tmp", "log", ".json"]


def test_appending_twice_under_one_key_records_once(tmp_path: Path):
    ledger = Ledger(Workspace(tmp_path / "w"), "case_events")
    rows = signals(1, 0)
    assert ledger.append(rows, key="k") and not ledger.append(rows, key="k")
    assert len(ledger.rows()) == 1 and ledger.has("k") and not ledger.has("other")


def test_what_is_appended_later_is_dated_later_though_the_clock_was_set_back(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    decision = {"kind": "promote", "round": 1, "checkpoint": "c", "by": "Ada", "why": "a test"}
    promotions, rounds = Ledger(workspace, "promotions"), Ledger(workspace, "rounds")
    ahead = datetime.now(UTC) + timedelta(hours=1)
    promotions.append([decision | {"decision": "0", "at": ahead}], key="0")
    for n in range(1, 4):
        promotions.append([decision | {"decision": str(n)}], key=str(n))
    promotions.compact()
    verdict = {"round": 1, "verdict": "PROMOTE", "checkpoint": "c", "incumbent": None, "snapshot": "s", "result": "{}"}
    rounds.append([verdict], key="round/1")
    promotions.append([decision | {"decision": "4"}], key="4")
    assert [r["decision"] for r in promotions.rows()] == list("01234"), "rows are sorted by time"
    times = [r["at"] for r in promotions.rows()]
    assert times[0] == ahead and times[3] < rounds.rows()[0]["at"] < times[4] < ahead + timedelta(seconds=1)


def test_compaction_leaves_large_files_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workspace = Workspace(tmp_path / "w")
    ledger = Ledger(workspace, "case_events")
    for number in range(5):
        ledger.append(signals(1, number), key=f"k{number}")
    rows, size = ledger.rows(), max(Path(f).stat().st_size for f in ledger.files())
    monkeypatch.setattr("flywheel.core.ledger._WHOLE_BYTES", int(2.5 * size))
    assert ledger.compact() == 4 and len(ledger.files()) == 3 and ledger.rows() == rows  # two, two and one
    monkeypatch.setattr("flywheel.core.ledger._WHOLE_BYTES", size)
    before = ledger.files()
    assert ledger.compact() == 0 and ledger.files() == before
    assert not ledger.append(signals(2, 0), key="k0") and fsck(workspace).sound


def test_two_writers_lose_nothing(s3: str):
    """Three writers, each with rows of its own, and keys that all want."""
    workspace = Workspace(f"{s3}/w")

    def write(writer: int) -> int:
        ledger = Ledger(workspace, "case_events")
        assert all(ledger.append(signals(writer, n), key=f"{writer}/{n}") for n in range(2))
        return sum(ledger.append(signals(writer, 100 + n), key=f"wanted/{n}") for n in range(2))

    with ThreadPoolExecutor(3) as pool:
        won = list(pool.map(write, range(3)))
    rows = Ledger(workspace, "case_events").rows()
    assert sum(won) == 2
    assert len(rows) == len({r["event_id"] for r in rows}) == 3 * 2 + 2


@pytest.mark.parametrize("fault", ["unanswered", "dropped"])
def test_a_commit_whose_answer_is_lost(s3: str, s3_server: tuple[str, int], monkeypatch, fault: str):
    """It is there: the repeated request, refused because of it, must not take it for another writer's."""
    lost = []

    def plan(method: str, path: str) -> str | None:
        if method == "PUT" and path.endswith("1.json") and not lost:
            lost.append(path)
            return fault
        return None

    with faulty(*s3_server, plan) as (address, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        ledger = Ledger(Workspace(f"{s3}/w"), "rounds")
        assert ledger.append([{"round": 1}], key="a")
        assert [r["round"] for r in ledger.rows()] == [1] and len(lost) == 1
        assert not ledger.append([{"round": 2}], key="a")


@pytest.mark.parametrize("attempt", range(5))
def test_first_appends_at_the_same_moment_make_one_table(tmp_path: Path, attempt: int):
    ledger = Ledger(Workspace(tmp_path / "w"), "costs")
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda n: ledger.append([{"cost_id": str(n)}], key=str(n)), range(4)))
    assert all(done) and sorted(r["cost_id"] for r in ledger.rows()) == ["0", "1", "2", "3"]
    commits = sorted((ledger.path / "_delta_log").glob("*.json"))
    assert sum('"metaData"' in c.read_text() for c in commits) == 1 and len(commits) == 5


def test_reading_rows_imports_no_pandas_and_keeps_times(tmp_path: Path) -> None:
    ledger = Ledger(Workspace(tmp_path / "w"), "snapshots")
    ledger.append([{"snapshot": "s", "policy": "p", "manifest": "m", "input": 1}], key="s")
    (row,) = ledger.rows()
    assert row == ledger.table().to_pylist()[0] and row["at"].utcoffset() == timedelta(0)
    script = "import sys; from flywheel.core.ledger import Ledger; from flywheel.core.workspace import Workspace; "
    script += "assert len(Ledger(Workspace(sys.argv[1]), 'snapshots').rows()) == 1; assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "w")], check=True)
