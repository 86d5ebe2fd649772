"""A server with the part of the Hugging Face hub's API that reading a public data set takes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


@contextmanager
def fake_hub(name: str, files: Mapping[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Address of a hub with one data set, and the requests so far."""
    asked: list[str] = []
    folders = sorted({"/".join(p.split("/")[:n]) for p in files for n in range(1, p.count("/") + 1)})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, body: bytes, code: int = 200, headers: Mapping[str, str] = {}) -> None:
            self.send_response(code)
            for key, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def json(self, value: Any) -> None:
            self.answer(json.dumps(value).encode(), headers={"Content-Type": "application/json"})

        def tree(self, below: str, deep: bool) -> list[dict[str, Any]]:
            prefix = below + "/" if below else ""
            listed = [entry(p, d) for p, d in files.items() if p.startswith(prefix)]
            listed += [
                {"type": "directory", "path": f, "oid": "0" * 40, "size": 0} for f in folders if f.startswith(prefix)
            ]
            return [e for e in listed if deep or "/" not in e["path"].removeprefix(prefix)]

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            path, query = unquote(url.path), parse_qs(url.query)
            asked.append(f"{self.command} {path}")
            api, resolve = f"/api/datasets/{name}", f"/datasets/{name}/resolve/"
            if path == api or path.startswith(f"{api}/revision/"):
                siblings = [{"rfilename": p} for p in files]
                self.json(
                    {"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
                )
            elif path.startswith(f"{api}/tree/"):
                below = path.removeprefix(f"{api}/tree/").partition("/")[2]
                self.json(self.tree(below, query.get("recursive", ["false"])[0].lower() in ("true", "1")))
            elif path.startswith(resolve):
                self.file(path.removeprefix(resolve).partition("/")[2])
            else:
                self.answer(b"{}", 404)

        do_HEAD = do_GET

        def file(self, path: str) -> None:
            if path not in files:
                self.answer(b"", 404, {"X-Error-Code": "EntryNotFound"})
                return
            data, code = files[path], 200
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "Accept-Ranges": "bytes"}
            if wanted := self.headers.get("Range"):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
                headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
                data, code = data[start : end + 1], 206
            self.answer(data, code, headers)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(f"POST {self.path}")
            if "/paths-info/" not in self.path:
                self.answer(b"{}", 404)
                return
            value = parse_qs(body.decode()) if body[:1] != b"{" else json.loads(body)
            wanted = value.get("paths", [])
            wanted = [wanted] if isinstance(wanted, str) else wanted
            known = {e["path"]: e for e in self.tree("", deep=True)}
            self.json([known[p] for p in wanted if p in known])

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
