"""Retries of all libraries and requests of a process share one bound, and start again once S3 answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.faulty_s3 import faulty
from flywheel.core import s3 as client
from flywheel.core import storage
from flywheel.core.files import write_bytes, write_parquet
from flywheel.core.heartbeat import beating
from flywheel.core.ledger import Ledger
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace


@pytest.mark.parametrize("fault", ["dropped", "503"])
def test_an_s3_that_stays_away_costs_its_patience_once(
    s3: str, s3_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch, fault: str
):
    monkeypatch.setattr(client, "PATIENCE", 2.0)
    monkeypatch.setattr(storage, "_DELTA_SECONDS", 2)
    faults: list[str] = []

    def seconds(work: Callable[[], object]) -> float:
        began = time.monotonic()
        with suppress(OSError):
            work()
            pytest.fail("S3 is away")
        return time.monotonic() - began

    with faulty(*s3_server, lambda method, path: faults[0] if faults else None) as (address, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        workspace = Workspace(f"{s3}/w")
        ledger, table = Ledger(workspace, "case_events"), workspace.path("pool", "t.parquet")
        row = {"case_id": "a", "event_id": "a", "round": 1, "kind": "seen"}
        assert ledger.append([row], key="a")
        write_parquet(table, pa.table({"n": [1]}))
        with beating(workspace.path("runs", "heartbeat.json")) as check:
            faults.append(fault)
            assert 2 < seconds(workspace.path("workspace.json").read_bytes) < 12  # botocore alone: half a minute
            with pytest.raises(client.S3Away, match="nothing but errors for"):
                check()
            afterwards = [
                lambda: pq.read_table(readable(table)),
                ledger._delta,
                lambda: ledger.append([row], key="b"),
                lambda: write_bytes(workspace.path("b.json"), b"{}"),
            ]
            assert all(any(seconds(work) < 1 for _ in range(3)) for work in afterwards)  # on a busy machine too
            began = time.monotonic()
        assert time.monotonic() - began < 10  # what ends, ends quickly too
        faults.clear()
        assert [r["event_id"] for r in ledger.rows()] == ["a"] and not client.away()


def test_errors_that_are_long_past_do_not_count(monkeypatch: pytest.MonkeyPatch):
    silence, now = client._Silence(), [1000.0]
    monkeypatch.setattr(client.time, "monotonic", lambda: now[0])
    silence.failed(30.0)  # a read that hung
    assert silence.seconds == 30
    now[0] += 20
    silence.failed(0.0)
    assert silence.seconds == 50
    now[0] += 600
    assert silence.seconds == 0
    silence.failed(0.0)
    now[0] += 1
    assert silence.seconds == 1
    silence.answered()
    assert silence.seconds == 0
