"""The feedback server: it accepts, rejects, tells duplicates, and loses nothing when it is killed."""

import json
import os
import random
import signal as signals
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flywheel.core.errors import UsageError
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace
from flywheel.signals.feedback_log import fold
from flywheel.signals.feedback_server import create_app

TOKEN = "a-token-of-sixteen-characters"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def rows(workspace: Workspace) -> list[dict]:
    return Ledger(workspace, "signals").rows()


@pytest.fixture
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    from fastapi.testclient import TestClient

    with TestClient(create_app(workspace, TOKEN)) as session:
        session.base_url = "http://127.0.0.1"
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        yield session


def test_the_endpoint_accepts_rejects_and_tells_duplicates(client: httpx.Client, workspace: Workspace):
    event = {"event_id": "1", "prompt": "a cat", "thumbs": "down"}
    assert client.post("/feedback", json=event).json() == {"accepted": 1, "duplicates": 0, "rejected": []}
    answer = client.post("/feedback", json=[event, event | {"event_id": "2"}, {"event_id": "3"}])
    rejected = [{"index": 2, "reason": "prompt: Field required"}]
    assert answer.status_code == 200 and answer.json() == {"accepted": 1, "duplicates": 1, "rejected": rejected}
    assert client.post("/feedback", json={"event_id": "3"}).status_code == 422
    assert client.post("/feedback", content=b"{").status_code == 422
    assert client.post("/feedback", json=[event] * 1001).status_code == 413
    assert client.post("/feedback", json=event, headers={"Authorization": "Bearer wrong"}).status_code == 401
    client.__exit__(None, None, None)  # stopping folds what is in the log
    assert len(rows(workspace)) == 2
    client.__enter__()


def test_odd_requests_are_refused_and_cost_nothing(client: httpx.Client, workspace: Workspace):
    event = {"event_id": "1", "prompt": "a cat", "thumbs": "down"}
    for content in (b"[" * 100_000, b'{"a":' * 100_000, b"[NaN]", b"\xff", b'["\\ud800"]', b"5", b'"text"', b"null"):
        assert client.post("/feedback", content=content).status_code == 422
    for at in ("1970-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2999-01-01T00:00:00"):
        answer = client.post("/feedback", json=event | {"at": at})
        assert answer.status_code == 422 and "future" in answer.json()["rejected"][0]["reason"]
    assert client.post("/feedback", json=event, headers={"Host": "evil.example"}).status_code == 400
    assert client.post("/feedback", json=event, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.post("/feedback", json=event | {"at": "2026-01-01T00:00:00Z"}).status_code == 200
    client.__exit__(None, None, None)
    assert len(rows(workspace)) == 1
    client.__enter__()


def test_a_token_that_could_be_guessed_is_refused(workspace: Workspace):
    with pytest.raises(UsageError, match="at least 16"):
        create_app(workspace, "secret")


def serve(workspace: Workspace) -> tuple[subprocess.Popen, str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "flywheel.cli", "signals", "serve", "-w", str(workspace.root), "--port", str(port)]
    server = subprocess.Popen(line, env=os.environ | {"FLYWHEEL_FEEDBACK_TOKEN": TOKEN}, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            httpx.get(f"{url}/health")
            break
        except httpx.HTTPError:
            time.sleep(0.1)
    return server, url


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_server_is_killed(workspace: Workspace):
    acknowledged: set[str] = set()
    sent: set[str] = set()

    def send(url: str, name: str) -> None:
        with httpx.Client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            for n in range(100_000):
                event = {"event_id": f"{name}-{n}", "prompt": f"a cat, {n}", "thumbs": "down"}
                sent.add(event["event_id"])
                try:
                    if client.post(f"{url}/feedback", json=event).status_code == 200:
                        acknowledged.add(event["event_id"])
                except httpx.HTTPError:
                    return

    server, url = serve(workspace)
    senders = [threading.Thread(target=send, args=(url, str(k))) for k in range(4)]
    for sender in senders:
        sender.start()
    while len(acknowledged) < 100 and server.poll() is None:
        time.sleep(0.01)
    time.sleep(random.random() / 5)
    server.send_signal(signals.SIGKILL)
    for sender in senders:
        sender.join()
    server.wait()
    fold(workspace)
    recorded = [json.loads(r["evidence"])["event_id"] for r in rows(workspace)]
    assert len(acknowledged) >= 100 and len(recorded) == len(set(recorded))
    assert acknowledged <= set(recorded) <= sent
