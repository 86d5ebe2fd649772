"""The judge against a real HTTP server: errors, rate limits, slowness, malformed answers, a cache."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flywheel.core.endpoint import Endpoint, Unanswered
from flywheel.signals.judge import Judge
from flywheel.signals.judging import Verifiers, judge_images
from flywheel.signals.suite import Prompt

YES = {"answers": [{"id": 0, "answer": "yes"}, {"id": 1, "answer": "no"}]}

PNG = b"\x89PNG some picture"

Reply = tuple[int, object]


class Server(ThreadingHTTPServer):
    """Answers with what `replies` says, in turn; the last one stays. Keeps every request."""

    replies: list[Reply | Callable[[], Reply]]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies, self.requests, self.headers = [(200, YES)], [], []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Server = self.server
        server.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        server.headers.append(dict(self.headers))
        reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
        status, content = reply() if callable(reply) else reply
        text = content if isinstance(content, str) else json.dumps(content)
        body = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as listening:
        threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield listening
        listening.shutdown()


def judge(server: Server, **changes: object) -> Judge:
    return Judge(Endpoint(**{"url": server.url, "model": "vlm", "longest_wait": 0.01, "timeout": 5} | changes))


def prompt(*questions: str) -> Prompt:
    checks = [{"verifier": "question", "capability": "object", "id": n, "question": q} for n, q in enumerate(questions)]
    return Prompt("p", "a cat and a dog", "t2i", (), tuple(checks))


def test_questions_are_answered_in_one_request_with_the_picture(server: Server):
    outcomes = judge_images([prompt("Is there a cat?", "Is there a dog?")], [PNG], by=Verifiers(judge=judge(server)))
    assert [o.passed for o in outcomes[0]] == [True, False]
    (request,) = server.requests
    parts = request["messages"][0]["content"]
    assert "0. Is there a cat?\n1. Is there a dog?" in parts[0]["text"]
    assert parts[1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert request["temperature"] == 0 and request["response_format"]["json_schema"]["strict"]


def test_no_usable_answer_costs_its_own_picture(server: Server):
    server.replies = [(200, YES), (400, "too large"), (200, YES)]
    suite = [prompt(q) for q in ("a?", "b?", "c?")]
    outcomes = judge_images(suite, [PNG] * 3, by=Verifiers(judge=Judge(judge(server).endpoint, workers=1)))
    assert [o[0].passed for o in outcomes] == [True, None, True]
    assert "rejects the question (HTTP 400)" in outcomes[1][0].evidence["not_applied"]
    server.replies = [(503, "down")]
    with pytest.raises(Unanswered, match="in 2 attempts: HTTP 503"):
        judge(server, attempts=2).answer(PNG, ["?"])


def test_an_edit_is_rated_with_its_references(server: Server, tmp_path: Path):
    reference = tmp_path / "r.png"
    reference.write_bytes(PNG)
    edit = Prompt("e", "make it red", "ti2i", (reference,), ({"verifier": "edit", "capability": "editing"},))
    server.replies = [(200, {"success": 9, "no_overediting": 4, "natural": 9, "no_artifacts": 9})]
    ((outcome,),) = judge_images([edit], [PNG], by=Verifiers(judge=judge(server)))
    assert outcome.score == pytest.approx(0.6) and outcome.passed
    assert [p["type"] for p in server.requests[0]["messages"][0]["content"]] == ["text", "image_url", "image_url"]


def test_without_a_judge_nothing_is_judged_and_says_so():
    ((outcome,),) = judge_images([prompt("Is there a cat?")], [PNG])
    assert outcome.passed is None and "no judge is configured" in outcome.evidence["not_applied"]
