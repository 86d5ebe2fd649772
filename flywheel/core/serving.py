"""How every HTTP service of ours listens: until it is stopped, and for nobody who keeps it waiting."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from flywheel.core.errors import UsageError

if TYPE_CHECKING:
    from fastapi import FastAPI

HEAD_SECONDS = 15.0  # from the connection, or the answer before, until the head of a request is whole
BODY_SECONDS = 30.0  # until its body is


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address; port 0 chooses a free one. Errors: `UsageError` if it is in use or not ours."""
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen on {host}:{port} ({reason}): choose another --host or --port") from error


def serve(
    app: FastAPI,
    listener: socket.socket,
    *,
    head_seconds: float = HEAD_SECONDS,
    on_stop: Callable[[], object] | None = None,
) -> None:
    """Serve until stopped. A connection whose request does not come within `head_seconds` is closed.

    HEAD is answered wherever GET is, as monitors ask it: routes declare GET alone, and the server leaves the body out.
    on_stop: is called when the stop comes; what is being answered then is waited for.
    """
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            if on_stop is not None:
                on_stop()

    async def with_heads(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope, receive, send)

    config = uvicorn.Config(with_heads, log_level="warning", access_log=False, http=_protocol(head_seconds))
    Server(config).run(sockets=[listener])


def _protocol(seconds: float) -> Any:
    """uvicorn's protocol, which waits for ever for the rest of a request's head, with a deadline."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Deadline(H11Protocol):
        _until: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def handle_events(self) -> None:
            super().handle_events()
            if self._answering():
                self._done()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self._answering():
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._done()

        def _answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _wait(self) -> None:
            self._done()
            self._until = self.loop.call_later(seconds, self.transport.close)

        def _done(self) -> None:
            if self._until is not None:
                self._until.cancel()
            self._until = None

    return Deadline
