"""A server that plays the hub: files under any address, in parts if asked; it can break off or stay silent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """files: last part of an address → its bytes. break_after: bytes of an answer after which the line is cut."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    break_after: int | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)  # (path, Range) of each GET


@contextmanager
def hub() -> Iterator[Hub]:
    """The running server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:  # noqa: N802 - the base class names it
            self.send_response(302)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:  # noqa: N802
            served.asked.append((self.path, wanted := self.headers.get("Range", "")))
            data = served.files.get(self.path.rpartition("/")[2])
            if data is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-") or 0)
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            stop = None if served.break_after is None else start + served.break_after
            self.wfile.write(data[start:stop])
            self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def silent() -> Iterator[str]:
    """Address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
