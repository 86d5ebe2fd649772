"""Captioning the pool: only missing captions are requested, and failures are recorded or retried."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from curation.captioning.written import sidecars
from flywheel.catalog.database import query
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from tests.curation.captioning.server import GOOD, Server, captioner, completion, counts, run


def test_only_what_is_missing_is_asked_for(workspace: Workspace, server: Server) -> None:
    asked = captioner(server)
    assert counts(run(workspace, asked, limit=1)) == (3, 0, 1, 0, 0, 2)
    assert counts(run(workspace, asked)) == (3, 1, 2, 0, 0, 0)
    assert counts(run(workspace, asked)) == (3, 3, 0, 0, 0, 0)
    assert len(server.calls) == 3
    assert counts(run(workspace, captioner(server, "Say what you see."))) == (3, 0, 3, 0, 0, 0)
    assert counts(run(workspace, asked, use="add")) == (4, 0, 4, 0, 0, 0)
    rows = query(workspace, "select use, count(*) n, count(distinct prompt) p from captions group by use order by use")
    assert rows == [{"use": "add", "n": 4, "p": 1}, {"use": "fill", "n": 6, "p": 2}]


def test_a_busy_and_failing_server_is_asked_again(workspace: Workspace, server: Server) -> None:
    answers = {0: (429, "slow down", {"Retry-After": "0"}), 1: (503, "starting"), 2: None}
    server.script = lambda n, r: answers.get(n, (200, completion(GOOD)))
    assert counts(run(workspace, captioner(server), concurrency=1)) == (3, 0, 3, 0, 0, 0)
    assert len(server.calls) == 6


def test_what_does_not_come_stays_to_be_asked(workspace: Workspace, server: Server) -> None:
    wait = threading.Event()
    server.script = lambda n, r: (wait.wait(5), (200, completion(GOOD)))[1] if n == 0 else (200, completion(GOOD))
    slow = captioner(server, timeout=0.2, attempts=1)
    assert counts(run(workspace, slow, concurrency=1)) == (3, 0, 2, 0, 1, 1)
    wait.set()
    assert counts(run(workspace, slow)) == (3, 2, 1, 0, 0, 0)


def test_refused_answers_are_recorded_and_not_asked_for_again(workspace: Workspace, server: Server) -> None:
    bad = {1: "nonsense", 2: "nonsense again", 3: 400}
    server.script = lambda n, r: (400, "no") if bad.get(n) == 400 else (200, completion(bad.get(n, GOOD)))
    assert counts(run(workspace, captioner(server, attempts=2), concurrency=1)) == (3, 0, 1, 2, 0, 0)
    assert len(server.calls) == 4
    assert counts(run(workspace, captioner(server))) == (3, 3, 0, 0, 0, 0)
    errors = sorted(r["error"] for r in query(workspace, "select error from captions where caption is null"))
    assert "in 2 attempts: the answer is not JSON" in errors[0] and "(HTTP 400): no" in errors[1]


def test_a_model_that_gives_no_caption_is_at_fault_however_few_are_asked_for(
    workspace: Workspace, server: Server
) -> None:
    server.script = lambda n, r: (200, completion("a dog, in plain words"))
    for _ in range(2):  # nothing is recorded: another try asks again
        with pytest.raises(UsageError, match="all 3 answers of .* are refused: .*the answer is not JSON"):
            run(workspace, captioner(server, attempts=1))
    assert len(server.calls) == 6 and not sidecars(workspace)
    server.script = lambda n, r: (200, completion(GOOD))
    assert counts(run(workspace, captioner(server))) == (3, 0, 3, 0, 0, 0)


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_key_or_address_ends_the_run(workspace: Workspace, server: Server, status: int) -> None:
    server.script = lambda n, r: (status, "denied")
    with pytest.raises(UsageError, match=f"HTTP {status}.*check url, model and key"):
        run(workspace, captioner(server))
    assert not sidecars(workspace)


def test_a_dead_endpoint_and_an_empty_pool(workspace: Workspace, server: Server, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UsageError, match="none of [0-9]+ pictures got an answer from http://127.0.0.1:9/v1"):
        run(workspace, captioner(server, url="http://127.0.0.1:9/v1", attempts=1))
    monkeypatch.setattr("curation.captioning.recaption._IN_A_ROW", 2)
    with pytest.raises(UsageError, match="no answer from the endpoint"):
        run(workspace, captioner(server, url="http://127.0.0.1:9/v1", attempts=2))
    server.script = lambda n, r: (400, "unknown field response_format")
    with pytest.raises(UsageError, match="first 2 answers .* refused: .*HTTP 400.*unknown field"):
        run(workspace, captioner(server))
    assert not sidecars(workspace), "the endpoint's fault was recorded as the pictures'"
    with pytest.raises(UsageError, match="ingest a source first"):
        run(Workspace(tmp_path / "empty"), captioner(server))
