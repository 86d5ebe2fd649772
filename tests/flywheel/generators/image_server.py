"""An OpenAI-compatible image server that paints cards of the color that a prompt names, and misbehaves when told to."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from tests.flywheel.generators.tiny_pipeline import COLORS, card

Fault = tuple[int, Any] | Callable[[], tuple[int, Any] | None]


class Server(ThreadingHTTPServer):
    """`faults` are answered first, in turn: (status, body), or a function. `knows`: does it paint a prompt right?"""

    daemon_threads = True

    def __init__(self, knows: Callable[[str], bool] = lambda prompt: True) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.knows = knows
        self.faults: list[Fault] = []
        self.asked: list[dict[str, Any]] = []
        self.fetched: list[dict[str, str]] = []
        self.by_address = False
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = _fields(self.headers["Content-Type"], body)
        with self.server.lock:
            self.server.asked.append(asked | {"path": self.path, "at": time.monotonic()})
            fault = self.server.faults.pop(0) if self.server.faults else None
        status, answer = (fault() if callable(fault) else fault) or (200, self._picture(asked))
        self._send(status, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def do_GET(self) -> None:
        self.server.fetched.append(dict(self.headers))
        self._send(200, _png(card("red")))

    def _picture(self, asked: dict[str, Any]) -> Any:
        if self.server.by_address:
            return {"data": [{"url": f"{self.server.url}/picture.png"}]}
        width, height = map(int, asked["size"].split("x"))
        named = next((c for c in COLORS if re.search(rf"\b{c}\b", asked["prompt"])), "red")
        wrong = next(c for c in COLORS if c != named)
        shown = card(named if self.server.knows(asked["prompt"]) else wrong, int(asked.get("seed", 0)))
        pixels = np.asarray(Image.fromarray(shown).resize((width, height)))
        return {"created": 1, "data": [{"b64_json": base64.b64encode(_png(pixels)).decode()}]}

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "0.2")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _fields(kind: str, body: bytes) -> dict[str, Any]:
    if not kind.startswith("multipart/"):
        return json.loads(body)
    parts = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body).get_payload()
    out: dict[str, Any] = {}
    for part in parts:
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if part.get_filename():
            out.setdefault(name, []).append(content)
        else:
            out[name] = content.decode()
    return out


@contextmanager
def serving(knows: Callable[[str], bool] = lambda prompt: True) -> Iterator[Server]:
    """A server as long as the block lasts."""
    with Server(knows) as listening:
        threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield listening
        listening.shutdown()
