"""A captioning server on this machine that answers well, badly, late, or not at all; and calls of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from curation.captioning.captioner import PROMPTS, Captioner
from curation.captioning.recaption import caption_pool
from flywheel.core.endpoint import Endpoint
from flywheel.core.workspace import Workspace

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


def captioner(server: Server, prompt: str = PROMPTS["general"], **options: Any) -> Captioner:
    return Captioner(Endpoint(**{"url": server.url, "model": "some/model", "longest_wait": 0.02} | options), prompt)


def run(workspace: Workspace, captioner: Captioner, use: str = "fill", **options: Any):
    return caption_pool(workspace, captioner, kind="general", use=use, **options)


def counts(captioned: Any) -> tuple[int, ...]:
    return (
        captioned.wanted,
        captioned.there,
        captioned.captioned,
        captioned.refused,
        captioned.unanswered,
        captioned.left,
    )
