"""A server of pictures that misbehaves in every way that servers do, and remembers who asked for what."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.curation.corpus import encoded, texture


def picture(name: str) -> bytes:
    """The picture that the server has at /ok/NAME."""
    return encoded(texture(zlib.crc32(name.encode()) % 100_000, 48, 40))


@cache
def _bomb() -> bytes:
    return gzip.compress(bytes(2**26))


BOMB = gzip.compress(bytes(2**25))


class Behaviour:
    """What the server was asked, and what it answers besides pictures."""

    def __init__(self, robots: str | None = None, robots_status: int = 200) -> None:
        self.robots, self.robots_status = robots, robots_status
        self.asked: Counter[str] = Counter()
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self.agents: set[str] = set()
        self.most_at_once = 0
        self.at_once = 0
        self.hold = 0.0  # seconds that every picture takes
        self.lock = threading.Lock()
        self.over = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Each first part of the path is a way to misbehave."""

    protocol_version = "HTTP/1.1"
    behaviour: Behaviour

    def do_GET(self) -> None:
        seen, path = self.behaviour, self.path
        with seen.lock:
            seen.asked[path] += 1
            seen.times[path].append(time.monotonic())
            seen.agents.add(self.headers.get("User-Agent", ""))
            if not path.startswith("/robots.txt"):
                seen.at_once += 1
                seen.most_at_once = max(seen.most_at_once, seen.at_once)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                getattr(self, path.strip("/").split("/")[0].partition("?")[0].replace("-", "_").replace(".", "_"))()
        finally:
            with seen.lock:
                seen.at_once -= not path.startswith("/robots.txt")

    def send(self, body: bytes, code: int = 200, headers: Mapping[str, str] = {}, length: int | None = None) -> None:
        self.send_response(code)
        given = {"Content-Type": "image/png", "Content-Length": str(len(body) if length is None else length), **headers}
        for key, value in given.items():
            if value:
                self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def robots_txt(self) -> None:
        seen = self.behaviour
        if seen.robots is None:
            self.send(b"", 404)
        else:
            self.send(seen.robots.encode(), seen.robots_status, {"Content-Type": "text/plain"})

    def ok(self) -> None:
        time.sleep(self.behaviour.hold)
        self.send(picture(self.path.rpartition("/")[2]))

    def private(self) -> None:
        self.ok()

    def slow_headers(self) -> None:
        self.behaviour.over.wait(20)

    def slow_body(self) -> None:
        """A byte now and then, for ever."""
        self.send(b"\x89PNG", length=1_000_000)
        while not self.behaviour.over.wait(0.1):
            self.wfile.write(b"x")
            self.wfile.flush()

    def endless(self) -> None:
        self.send(b"\x89PNG\r\n\x1a\n", headers={"Content-Length": "", "Connection": "close"})
        while not self.behaviour.over.is_set():
            self.wfile.write(bytes(65536))

    def huge(self) -> None:
        self.send(b"\x89PNG", length=10**12)

    def lies_long(self) -> None:
        """Says more bytes than it sends."""
        self.send(picture("x"), length=len(picture("x")) + 1000)
        self.close_connection = True

    def lies_short(self) -> None:
        """Sends more bytes than it says."""
        self.send(picture("x"), length=100)
        self.close_connection = True

    def busy(self) -> None:
        """429 at first, and asks to wait a second; then a picture."""
        if self.behaviour.asked[self.path] == 1:
            self.send(b"", 429, {"Retry-After": "1"})
        else:
            self.send(picture("busy"))

    def busy_for_long(self) -> None:
        self.send(b"", 429, {"Retry-After": "86400"})

    def unstable(self) -> None:
        """503 twice, then a picture."""
        if self.behaviour.asked[self.path] <= 2:
            self.send(b"", 503)
        else:
            self.send(picture("unstable"))

    def broken(self) -> None:
        self.send(b"", 500)

    def gone(self) -> None:
        self.send(b"", 410)

    def to_loopback(self) -> None:
        self.send(b"", 302, {"Location": "http://localhost:9/secret"})

    def to_metadata(self) -> None:
        self.send(b"", 307, {"Location": "http://169.254.169.254/latest/meta-data"})

    def to_file(self) -> None:
        self.send(b"", 302, {"Location": "file:///etc/passwd"})

    def loop(self) -> None:
        self.send(b"", 302, {"Location": "/loop/again"})

    def nowhere(self) -> None:
        self.send(b"", 302)

    def moved(self) -> None:
        self.send(b"", 301, {"Location": "../ok/moved.png"})

    def html(self) -> None:
        self.send(b"<!DOCTYPE html><p>Log in", headers={"Content-Type": "text/html"})

    def empty(self) -> None:
        self.send(b"")

    def noai(self) -> None:
        self.send(picture("noai"), headers={"X-Robots-Tag": "noai, noimageai"})

    def not_for_others(self) -> None:
        self.send(picture("others"), headers={"X-Robots-Tag": "otherbot: noindex, noai"})

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        self.wfile = open("/dev/null", "wb")  # noqa: SIM115

    def reset_body(self) -> None:
        self.send(b"\x89PNG", length=5000)
        self.wfile.flush()
        self.reset()

    def nonsense(self) -> None:
        self.wfile.write(b"NOT HTTP AT ALL\r\n\r\n")
        self.close_connection = True

    def bomb(self) -> None:
        """32 megabytes of zeros in 32 kilobytes."""
        self.send(BOMB, headers={"Content-Encoding": "gzip"})

    def packed(self) -> None:
        deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
        self.send(deflate.compress(picture("packed")) + deflate.flush(), headers={"Content-Encoding": "gzip"})

    def packed_otherwise(self) -> None:
        self.send(picture("x"), headers={"Content-Encoding": "br"})

    def log_message(self, *args: object) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *args: object) -> None:
        """Nothing: breaking connections is its purpose."""


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """Address of the server."""
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"behaviour": behaviour}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        behaviour.over.set()
        server.shutdown()
        server.server_close()
