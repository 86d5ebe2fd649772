"""The HTTP endpoint of user feedback: POST /feedback with a bearer token. Status 200 means the events are on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from flywheel.core import serving
from flywheel.core.errors import UsageError
from flywheel.core.guard import Guard, limits_of, parse_json
from flywheel.core.workspace import Workspace
from flywheel.signals.feedback import Feedback, why
from flywheel.signals.feedback_log import FeedbackLog

MAX_EVENTS = 1000  # per request
MAX_BYTES = 4 << 20
TOKEN_VARIABLE = "FLYWHEEL_FEEDBACK_TOKEN"


def create_app(
    workspace: Workspace,
    token: str,
    *,
    host: str = "127.0.0.1",
    fold_seconds: float = 10.0,
    body_seconds: float = serving.BODY_SECONDS,
) -> FastAPI:
    """The application. Errors: `UsageError` for a token short enough to be guessed."""
    if not token:
        raise UsageError(f"set the environment variable {TOKEN_VARIABLE} to the token that clients send")
    limits = limits_of(host, token, variable=TOKEN_VARIABLE, body_bytes=MAX_BYTES)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        log = app.state.log = FeedbackLog(workspace, fold_seconds=fold_seconds)
        writer = asyncio.create_task(log.run())
        yield
        writer.cancel()
        with suppress(asyncio.CancelledError):
            await writer
        log.close()

    app = FastAPI(title="Feedback", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.get("/health")
    async def health() -> dict[str, bool]:
        return {"ok": True}

    @app.post("/feedback")
    async def feedback(request: Request) -> JSONResponse:
        try:
            body = parse_json(await request.body())
        except ValueError as error:
            return _refuse(422, f"{error}: send one event, or a list of events")
        rows = body if isinstance(body, list) else [body]
        if len(rows) > MAX_EVENTS:
            return _refuse(413, f"send at most {MAX_EVENTS} events at once")
        events, rejected = [], []
        for n, row in enumerate(rows):
            try:
                events.append(Feedback.model_validate(row))
            except ValidationError as error:
                rejected.append({"index": n, "reason": why(error)})
        try:
            new = await request.app.state.log.append(events)
        except OSError as error:
            return _refuse(503, f"nothing was recorded, send it again: {error}")
        answer = {"accepted": new, "duplicates": len(events) - new, "rejected": rejected}
        return JSONResponse(answer, 422 if rejected and not events else 200)

    app.add_middleware(Guard, limits=replace(limits, body_seconds=body_seconds))
    return app


def _refuse(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status)


def serve(workspace: Workspace, token: str, *, host: str, port: int) -> None:
    """Serve until stopped. Errors: `UsageError` if the port is in use."""
    app = create_app(workspace, token, host=host)
    serving.serve(app, serving.listen(host, port))
