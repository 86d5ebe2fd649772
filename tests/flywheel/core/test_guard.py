"""Strangers, other sites, endless and odd requests are refused by one sentence with a status of 4xx."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from flywheel.core.errors import UsageError
from flywheel.core.guard import MAX_DEPTH, Guard, Limits, host_name, limits_of, parse_json
from tests.training.rl_parts import serving

TOKEN = "a-token-of-16-characters"


def echo(limits: Limits) -> FastAPI:
    app = FastAPI()

    @app.post("/echo")
    async def answer(request: Request) -> JSONResponse:
        return JSONResponse({"bytes": len(await request.body())})

    @app.get("/health")
    async def health() -> dict[str, bool]:
        return {"ok": True}

    app.add_middleware(Guard, limits=limits)
    return app


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(echo(Limits(TOKEN, body_bytes=1000, body_seconds=1.0))) as url:
        yield url


def test_who_may_ask(address: str):
    mine = {"Authorization": f"Bearer {TOKEN}"}
    assert httpx.post(f"{address}/echo", content=b"12", headers=mine).json() == {"bytes": 2}
    for own in ({"Origin": address}, {"Origin": "http://behind.a.proxy", "Sec-Fetch-Site": "same-origin"}):
        assert httpx.post(f"{address}/echo", content=b"12", headers=mine | own).status_code == 200
    assert httpx.get(f"{address}/health").status_code == 200
    for headers, status in (
        ({}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        (mine | {"Host": "evil.example"}, 400),
        (mine | {"Host": "127.0.0.1.evil.example:80"}, 400),
        (mine | {"Sec-Fetch-Site": "cross-site"}, 403),
        (mine | {"Origin": "http://evil.example"}, 403),  # of a browser without Sec-Fetch-Site
        (mine | {"Origin": "null"}, 403),
    ):
        answer = httpx.post(f"{address}/echo", content=b"12", headers=headers)
        assert answer.status_code == status and len(answer.json()["error"]) > 10


def test_how_much_may_be_sent(address: str):
    mine = {"Authorization": f"Bearer {TOKEN}"}

    def chunks(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield b"x" * 100

    assert httpx.post(f"{address}/echo", content=chunks(10), headers=mine).json() == {"bytes": 1000}
    for content in (b"x" * 1001, chunks(11)):
        assert httpx.post(f"{address}/echo", content=content, headers=mine).status_code == 413


def test_a_slow_sender_is_let_go(address: str):
    host, _, port = address.removeprefix("http://").partition(":")
    head = f"POST /echo HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\nslow"
    began = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode())
        assert b" 408 " in connection.recv(1000).split(b"\r\n")[0]
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b'"\\ud800"', "not UTF-8"),
        (b"[NaN]", "NaN is not a JSON number"),
        (b"[1e999]", "1e999 is not a JSON number"),
        (b'{"a": -1.5E+400}', "is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper"),
        (b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), "nested deeper"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested deeper"),
        (b"9" * 5000, ""),
    ],
    ids=str,
)
def test_odd_json_is_one_sentence(sent: bytes, why: str):
    with pytest.raises(ValueError, match=why):
        parse_json(sent)


def test_plain_json_is_read():
    assert parse_json('{"a": [1, "é\\ud83d\\ude00"]}'.encode()) == {"a": [1, "é😀"]}
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


def test_an_address_that_others_reach_needs_a_token():
    with pytest.raises(UsageError, match="--host 0.0.0.0 lets other machines in: set VARIABLE"):
        limits_of("0.0.0.0", "", variable="VARIABLE", body_bytes=1)
    with pytest.raises(UsageError, match="the token in VARIABLE needs at least 16"):
        limits_of("127.0.0.1", "short", variable="VARIABLE", body_bytes=1)
    assert (
        limits_of("127.0.0.1", "", variable="V", body_bytes=1).hosts
        and not limits_of("::", TOKEN, variable="V", body_bytes=1).hosts
    )


def test_the_name_in_a_host_header():
    names = {"localhost:80": "localhost", "[::1]:80": "::1", "127.0.0.1": "127.0.0.1", "A.b:x": "a.b:x"}
    assert {header: host_name(header) for header in names} == names
