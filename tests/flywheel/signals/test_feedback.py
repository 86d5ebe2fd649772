"""User feedback: by file and by HTTP, once by event id, and nothing acknowledged is lost when the server is killed."""

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
from flywheel.signals.feedback import Feedback, import_file, signal, signal_id
from flywheel.signals.feedback_log import Segment, fold
from flywheel.signals.feedback_server import create_app

TOKEN = "a-token-of-sixteen-characters"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "w")


def rows(workspace: Workspace) -> list[dict]:
    return Ledger(workspace, "signals").rows()


def test_what_an_event_says():
    def passed(**event: object) -> bool | None:
        return signal(Feedback(event_id="1", prompt="a cat", **event))["passed"]

    assert passed(thumbs="up") is True and passed(thumbs="down") is False and passed() is None
    assert passed(rerolls=2) is False and passed(edited_prompt="a black cat") is False
    assert passed(thumbs="up", rerolls=2) is True  # in the end it was right
    found = signal(Feedback(event_id="1", prompt="a cat", thumbs="down", reason="two cats"))
    assert json.loads(found["evidence"]) == {"event_id": "1", "thumbs": "down", "reason": "two cats"}


def test_a_file_counts_each_event_once_and_quarantines_bad_rows(workspace: Workspace, tmp_path: Path):
    good = [{"event_id": str(n % 8), "prompt": "a cat", "thumbs": "down"} for n in range(10)]
    lines = [*map(json.dumps, good), "{", '{"event_id": "x"}', '{"event_id": "y", "prompt": "a", "thumbs": "left"}']
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(lines))
    found = import_file(workspace, path)
    assert (found.imported, found.duplicates, found.quarantined) == (8, 2, 3)
    listed = [json.loads(line) for line in Path(found.quarantine).read_text().splitlines()]
    assert [r["row"] for r in listed] == [11, 12, 13] and listed[1]["reason"] == "prompt: Field required"
    again = import_file(workspace, path)
    assert (again.imported, again.duplicates) == (0, 10) and len(rows(workspace)) == 8


def test_parquet_and_json_lines_are_the_same_events(workspace: Workspace, tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    events = [{"event_id": "1", "prompt": "a", "thumbs": "up"}, {"event_id": "2", "prompt": "b", "rerolls": 1}]
    pq.write_table(pa.Table.from_pylist(events, schema=pa.schema(
        [("event_id", pa.string()), ("prompt", pa.string()), ("thumbs", pa.string()), ("rerolls", pa.int64())]
    )), tmp_path / "f.parquet")  # fmt: skip
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, events)))
    assert import_file(workspace, tmp_path / "f.parquet").imported == 2
    assert import_file(workspace, tmp_path / "f.jsonl").duplicates == 2
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        import_file(workspace, tmp_path / "bad.parquet")


def test_a_torn_line_was_never_acknowledged_and_a_live_segment_is_left_alone(workspace: Workspace):
    folder = workspace.path("feedback", "log")
    live = Segment(folder)
    live.write(b'{"event_id":"1","prompt":"a"}\n{"event_id":"2","prompt":"b"}\nbroken\n{"event_id":"3","pro')
    assert fold(workspace) == 0 and live.path.exists()
    live.close()
    assert fold(workspace) == 2 and not list(folder.iterdir())
    assert {r["signal_id"] for r in rows(workspace)} == {signal_id("1"), signal_id("2")}
    assert b"broken" in next(workspace.path("feedback", "quarantine").iterdir()).read_bytes()


@pytest.fixture
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    from fastapi.testclient import TestClient

    with TestClient(create_app(workspace, TOKEN)) as found:
        found.headers["Authorization"] = f"Bearer {TOKEN}"
        yield found


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
    found = [json.loads(r["evidence"])["event_id"] for r in rows(workspace)]
    assert len(acknowledged) >= 100 and len(found) == len(set(found))
    assert acknowledged <= set(found) <= sent
