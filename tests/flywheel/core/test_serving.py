"""Servers listen where they may, and hang up on clients that keep them waiting."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from flywheel.core.errors import UsageError
from flywheel.core.serving import listen, serve


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    app = FastAPI()

    @app.get("/slow")
    async def slow() -> str:
        await asyncio.sleep(1.2)
        return "slow"

    @app.get("/")
    async def root() -> str:
        return "ok"

    listener = listen("127.0.0.1", 0)
    # A daemon: uvicorn stops by signals, which only main threads get.
    threading.Thread(target=serve, args=(app, listener), kwargs={"head_seconds": 0.6}, daemon=True).start()
    yield listener.getsockname()[1]


def seconds_until_closed(port: int, sent: bytes, *, drip: bytes = b"") -> float:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        began = time.monotonic()
        connection.settimeout(0.1)
        while time.monotonic() - began < 10:
            try:
                if not connection.recv(1000):
                    break
            except TimeoutError:
                if drip:
                    connection.sendall(drip)
            except ConnectionError:
                break
        return time.monotonic() - began


@pytest.mark.parametrize(
    ("sent", "drip"),
    [
        (b"", b""),
        (b"G", b""),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"x"),  # one byte after the other
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT", b"x"),  # in its second request
    ],
    ids=["silent", "one byte", "dripping", "second request"],
)
def test_who_keeps_a_server_waiting_is_hung_up_on(port: int, sent: bytes, drip: bytes):
    assert seconds_until_closed(port, sent, drip=drip) < 5


def test_an_answer_may_take_longer_and_a_connection_is_used_again(port: int):
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        assert [client.get("/slow").json() for _ in range(2)] == ["slow", "slow"]
        assert client.get("/").json() == "ok"
        asked = client.head("/")
        assert (asked.status_code, asked.content, asked.headers["content-length"]) == (200, b"", "4")
        assert client.get("/").json() == "ok"  # on the same connection


def test_where_nobody_can_listen_is_one_sentence(port: int):
    for host, at in (("127.0.0.1", port), ("192.0.2.1", 0), ("127.0.0.1", 70_000), ("no.such.host.invalid", 0)):
        with pytest.raises(UsageError, match="cannot listen on .*: choose another --host or --port"):
            listen(host, at)
