"""An S3 server behind a proxy that lets some requests fail: for the benchmark and the tests."""

from __future__ import annotations

import http.client
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

# What happens to a request: it does not arrive; an error comes back; it is done but the answer is lost; it is late.
FAULTS = ("dropped", "500", "503", "unanswered", "slow")
SLOW_SECONDS = 0.3

# A plan may also name "unconditional": the proxy removes the condition that the object must not exist.

Plan = Callable[[str, str], str | None]  # (method, path) of a request → its fault, or None


@contextmanager
def s3_server() -> Iterator[tuple[str, int]]:
    """Host and port of moto's server in this process; it accepts any keys, such as those of `environment`."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # otherwise it logs a line per request
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()
    finally:
        server.stop()


def environment(address: str) -> dict[str, str]:
    """Environment variables of AWS for the server at `address`."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    return keys | {"AWS_ENDPOINT_URL": address}


def make_bucket(host: str, port: int, name: str) -> str:
    """Create a bucket; returns its address."""
    urlopen(Request(f"http://{host}:{port}/{name}", method="PUT")).close()
    return f"s3://{name}"


def draw(rate: float, seed: int = 0) -> Plan:
    """Random faults for the share `rate` of all requests; the seed makes them repeatable."""
    rng, lock = random.Random(seed), threading.Lock()

    def plan(method: str, path: str) -> str | None:
        with lock:
            return rng.choice(FAULTS) if rng.random() < rate else None

    return plan


@contextmanager
def faulty(host: str, port: int, plan: Plan) -> Iterator[tuple[str, Counter[str]]]:
    """Run a proxy in front of the server; yields its address and the counts of faults so far."""
    faults: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = plan(self.command, self.path)
            faults[fault or "none"] += 1
            if fault == "dropped":
                return self.hang_up()
            if fault in ("500", "503"):
                return self.answer(int(fault), {}, b"<Error><Code>InternalError</Code></Error>")
            if fault == "slow":
                time.sleep(SLOW_SECONDS)
            connection = http.client.HTTPConnection(host, port, timeout=60)
            try:
                if fault == "unconditional":
                    del self.headers["If-None-Match"]
                connection.request(self.command, self.path, body, dict(self.headers))
                response = connection.getresponse()
                content = response.read()
            finally:
                connection.close()
            if fault == "unanswered":
                return self.hang_up()
            return self.answer(response.status, dict(response.getheaders()), content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

        def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", len(content)) if self.command == "HEAD" else len(content)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def hang_up(self) -> None:
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client stopped waiting
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", faults
    finally:
        server.shutdown()
        server.server_close()
