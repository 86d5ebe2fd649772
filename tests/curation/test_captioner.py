"""Captions by a model: a real server on this machine that answers well, badly, late, or not at all."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.captioning.captioner import PROMPTS, Captioner, Refused
from curation.captioning.recaption import caption_pool
from curation.captioning.written import sidecars
from curation.policy.reader import load_policy
from curation.run import curate
from curation.sources import pool
from curation.sources.ingest import ingest
from flywheel.catalog.database import query
from flywheel.core.endpoint import Endpoint
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, tree, write_folder

GOOD = {"caption": "Soft patches of two colours", "objects": ["patch"], "style": "abstract", "quoted": [],
        "watermark": False}  # fmt: skip


def completion(answer: Any, **more: Any) -> dict[str, Any]:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop"} | more]}


class Server(ThreadingHTTPServer):
    """Answers call n with `script(n, request)`: (status, JSON body or text, headers), or None to hang up."""

    daemon_threads = True
    script: Callable[[int, dict], Any]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()

    def handle_error(self, *_: Any) -> None: ...  # the client hung up: that is part of the test

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            number = len(self.server.calls)
            self.server.calls.append(request)
            self.server.headers.append(dict(self.headers))
        answer = self.server.script(number, request) if self.path == "/v1/chat/completions" else (404, "no such path")
        if answer is None:
            self.connection.close()
            return
        status, body, *headers = answer
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in (headers[0] if headers else {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.script = lambda n, r: (200, completion(GOOD))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Six pictures: four without a caption, two of them of the same bytes; and an edit pair."""
    pictures = {f"{n}.png": encoded(texture(n)) for n in range(4)}
    files = pictures | {"2b.png": pictures["2.png"], "edit.png": encoded(texture(9))}
    captions = {"0.png": "a caption of its own", "edit.png": {"caption": "mend it", "references": ["0.png"]}}
    workspace = Workspace(tmp_path / "w")
    ingest(workspace, write_folder(tmp_path / "src", files, captions))
    return workspace


def captioner(server: Server, prompt: str = PROMPTS["general"], **options: Any) -> Captioner:
    return Captioner(Endpoint(**{"url": server.url, "model": "some/model", "longest_wait": 0.02} | options), prompt)


def run(workspace: Workspace, captioner: Captioner, use: str = "fill", **options: Any):
    return caption_pool(workspace, captioner, kind="general", use=use, **options)


def counts(found: Any) -> tuple[int, ...]:
    return found.wanted, found.there, found.captioned, found.refused, found.unanswered, found.left


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


def test_what_is_sent(workspace: Workspace, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPTION_KEY", "secret")
    run(workspace, captioner(server, key_variable="CAPTION_KEY"), limit=1)
    (body,), (headers,) = server.calls, server.headers
    assert headers["Authorization"] == "Bearer secret"
    picture, text = body["messages"][0]["content"]
    assert PROMPTS["general"] in text["text"] and "JSON" in text["text"]
    kind, data = picture["image_url"]["url"].split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (160, 120)
    schema = body["response_format"]["json_schema"]["schema"]
    assert set(schema["required"]) == set(GOOD)


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


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("not json", "answer is not JSON"),
        (GOOD | {"objects": "a patch"}, "does not fit the schema: 'a patch' is not of type 'array'"),
        ({k: v for k, v in GOOD.items() if k != "watermark"}, "'watermark' is a required property"),
        (GOOD | {"caption": ""}, "does not fit the schema"),
        (GOOD | {"caption": "I'm sorry, I cannot describe this image."}, "describes nothing \\(refusal\\)"),
        (GOOD | {"caption": "12345"}, "describes nothing \\(no words"),
    ],
)
def test_a_bad_answer_is_refused_with_its_reason(server: Server, answer: Any, reason: str) -> None:
    server.script = lambda n, r: (200, completion(answer))
    with pytest.raises(Refused, match=reason):
        captioner(server, attempts=2).ask(encoded(texture(0)))
    with pytest.raises(Refused, match="cannot be read: truncated"):
        captioner(server).ask(encoded(texture(0))[:-500])


def test_refused_answers_are_recorded_and_not_asked_for_again(workspace: Workspace, server: Server) -> None:
    bad = {1: "nonsense", 2: "nonsense again", 3: 400}
    server.script = lambda n, r: (400, "no") if bad.get(n) == 400 else (200, completion(bad.get(n, GOOD)))
    assert counts(run(workspace, captioner(server, attempts=2), concurrency=1)) == (3, 0, 1, 2, 0, 0)
    assert len(server.calls) == 4
    assert counts(run(workspace, captioner(server))) == (3, 3, 0, 0, 0, 0)
    errors = sorted(r["error"] for r in query(workspace, "select error from captions where caption is null"))
    assert "in 2 attempts: the answer is not JSON" in errors[0] and "(HTTP 400): no" in errors[1]


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_key_or_address_ends_the_run(workspace: Workspace, server: Server, status: int) -> None:
    server.script = lambda n, r: (status, "denied")
    with pytest.raises(UsageError, match=f"HTTP {status}.*check url, model and key"):
        run(workspace, captioner(server))
    assert not sidecars(workspace)


def test_a_dead_endpoint_and_an_empty_pool(workspace: Workspace, server: Server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("curation.captioning.recaption._IN_A_ROW", 2)
    with pytest.raises(UsageError, match="no answer from the endpoint"):
        run(workspace, captioner(server, url="http://127.0.0.1:9/v1", attempts=2))
    server.script = lambda n, r: (400, "unknown field response_format")
    with pytest.raises(UsageError, match="first 2 answers .* refused: .*HTTP 400.*unknown field"):
        run(workspace, captioner(server))
    assert not sidecars(workspace), "the endpoint's fault was recorded as the pictures'"
    with pytest.raises(UsageError, match="ingest a source first"):
        run(Workspace(tmp_path / "empty"), captioner(server))


def test_curation_judges_and_shards_the_caption_that_fills_a_gap(
    workspace: Workspace, server: Server, ray_session: None
) -> None:
    policy = load_policy("demo")
    before = curate(workspace, policy)
    scores = tree(workspace.path("scores"))
    run(workspace, captioner(server))
    run(workspace, captioner(server, model="other"), use="add")
    after = curate(workspace, policy)
    assert after.snapshot != before.snapshot
    assert after.admitted == before.admitted + 3
    assert {k: v for k, v in tree(workspace.path("scores")).items() if k in scores} == scores
    new = {k.split("@")[0] for k in tree(workspace.path("scores")) if k not in scores}
    assert new == {"text", "caption", "ocr"} & {k.split("@")[0] for k in scores}, "only readers of captions score again"
    (shard,) = pool.shards(workspace)
    assert "a caption of its own" in pq.read_table(shard.path)["caption"].to_pylist()  # the pool is as it was
    rows: dict[str, dict] = {}
    for file in read_json(Path(after.manifest))["files"]:
        rows |= {r["caption"]: r for r in pq.read_table(Path(after.manifest).parent / file["path"]).to_pylist()}
    own, filled = rows["a caption of its own"], rows[GOOD["caption"]]
    assert [c["origin"].split("@")[0] for c in own["captions"]] == ["source", "other"]
    assert [c["origin"].split("@")[0] for c in filled["captions"]] == ["other", "some/model"]
    assert [c["origin"] for c in rows["mend it"]["captions"]] == ["source"]
    run(workspace, captioner(server), use="replace")
    replaced = curate(workspace, policy)
    assert replaced.admitted <= after.admitted
    for file in read_json(Path(replaced.manifest))["files"]:
        shown = pq.read_table(Path(replaced.manifest).parent / file["path"]).to_pylist()
        assert {r["caption"] for r in shown} <= {GOOD["caption"], "mend it"}
