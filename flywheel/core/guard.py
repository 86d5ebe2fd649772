"""What every HTTP service of ours refuses before its own code runs: strangers, other sites, and endless requests."""

from __future__ import annotations

import asyncio
import hmac
import json
import math
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.serving import BODY_SECONDS

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MIN_TOKEN = 16  # characters
MAX_DEPTH = 64  # lists and objects within each other
_OTHERS = ("cross-site", "same-site")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True)
class Limits:
    """Who may ask, and how much.

    token: that clients send as `Authorization: Bearer TOKEN`; empty for none. hosts: accepted names in the Host header;
    empty for any. open_paths need no token.
    """

    token: str = ""
    hosts: tuple[str, ...] = LOOPBACK
    body_bytes: int = 4 << 20
    body_seconds: float = BODY_SECONDS
    open_paths: tuple[str, ...] = ("/health",)


def limits_of(host: str, token: str, *, variable: str, body_bytes: int) -> Limits:
    """The limits of a service that listens on `host`. `variable`: where its user sets the token.

    Errors: `UsageError` for a token that can be guessed, and for none where other machines can reach the service.
    """
    if token and len(token) < MIN_TOKEN:
        raise UsageError(f"the token in {variable} needs at least {MIN_TOKEN} characters")
    if not token and host not in LOOPBACK:
        raise UsageError(
            f"--host {host} lets other machines in: set {variable} to a token that clients send, or use"
            " --host 127.0.0.1"
        )
    return Limits(token, LOOPBACK if host in LOOPBACK else (), body_bytes)


def plain(status: int, reason: str) -> Any:
    """The body of a refusal, where a service has no other shape for it."""
    return {"error": reason}


class Guard:
    """ASGI middleware that refuses what `limits` forbid, with one sentence of JSON; reads the body before the app.

    shape: (status, sentence) → the JSON value of a refusal.
    """

    def __init__(self, app: Any, limits: Limits, shape: Callable[[int, str], Any] = plain) -> None:
        self.app, self.limits, self.shape = app, limits, shape

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        refusal = self._refusal(headers, scope["path"])
        body = b""
        if refusal is None:
            try:
                async with asyncio.timeout(self.limits.body_seconds):
                    body = await self._body(headers, receive)
            except TimeoutError:
                refusal = (408, f"send the whole request within {self.limits.body_seconds:g} s")
            except ValueError:
                refusal = (413, f"send at most {self.limits.body_bytes} bytes")
        if refusal is not None:
            await _answer(send, refusal[0], self.shape(*refusal))
            return
        rest = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            return next(rest, None) or await receive()

        await self.app(scope, replay, send)

    def _refusal(self, headers: dict[str, str], path: str) -> tuple[int, str] | None:
        limits = self.limits
        if limits.hosts and host_name(headers.get("host", "")) not in limits.hosts:
            return 400, "this service answers only under its own address"
        if _from_another_site(headers):
            return 403, "another site sent this request"
        given = headers.get("authorization", "").encode()
        wanted = f"Bearer {limits.token}".encode()
        if limits.token and path not in limits.open_paths and not hmac.compare_digest(given, wanted):
            return 401, "give the token as Authorization: Bearer TOKEN"
        return None

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        """The whole body. Errors: `ValueError` if it is too long."""
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.limits.body_bytes:
            raise ValueError(length)
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.limits.body_bytes:
                raise ValueError(size)
            more = message.get("more_body", False)
        return b"".join(parts)


def _from_another_site(headers: dict[str, str]) -> bool:
    """By what browsers say of a request: older ones say only which page sent it. Other programs say nothing."""
    if site := headers.get("sec-fetch-site"):
        return site in _OTHERS
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()


def host_name(header: str) -> str:
    """The name in a Host header, without its port."""
    name, colon, port = header.rpartition(":")
    return (name if colon and port.isdecimal() else header).strip("[]").lower()


async def _answer(send: Send, status: int, value: Any) -> None:
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def parse_json(data: bytes) -> Any:
    """The JSON value that a stranger sent. Errors: `ValueError` with one sentence.

    Refused besides malformed JSON: NaN, infinities and numbers as large, values nested deeper than `MAX_DEPTH`, and
    halves of surrogate pairs, which are no text.
    """

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not a JSON number")

    def finite(text: str) -> float:
        number = float(text)
        if math.isinf(number):
            refuse(text[:40])
        return number

    try:
        value = json.loads(data, parse_constant=refuse, parse_float=finite)
        if b"\\ud" in data or b"\\uD" in data:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError as error:
        raise ValueError("the body is not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"the body is not JSON ({error})") from error
    except RecursionError as error:
        raise ValueError(f"the body is nested deeper than {MAX_DEPTH} levels") from error
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if level:
        raise ValueError(f"the body is nested deeper than {MAX_DEPTH} levels")
    return value
