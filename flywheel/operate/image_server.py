"""An OpenAI-compatible image server over the system in service: POST /v1/images/generations and /v1/images/edits.

Prompts go through the system's enhancer, pictures through the sampling code of `flywheel sample`. `OpenAI(base_url=…)`
and `flywheel.generators.endpoint.EndpointGenerator` are its clients.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from flywheel.core.errors import UsageError
from flywheel.core.guard import Guard, limits_of, parse_json
from flywheel.core.records import System
from flywheel.operate.image_requests import MAX_REFERENCES, Order, Refused, error_body, read_order
from flywheel.operate.image_workers import Failed, Full, Job, Picture, Queue

TOKEN_VARIABLE = "FLYWHEEL_IMAGES_TOKEN"
ALIAS = "flywheel"  # a model name that always means the system in service
MAX_BYTES = 64 << 20  # of a request, with the pictures of an edit
REFRESH_SECONDS = 15.0  # after which it is looked whether another system was promoted
_FIELDS = 64  # of a form


class Gone(Exception):
    """The client left before its pictures were drawn."""


class Served:
    """The system in service, read again from time to time: a promotion needs no restart."""

    def __init__(self, read: Callable[[], System]) -> None:
        self._read, self.system, self._at = read, read(), time.monotonic()

    async def now(self) -> System:
        """The system, read every `REFRESH_SECONDS` from two ledgers. Errors: `UsageError` if none is left."""
        if time.monotonic() - self._at > REFRESH_SECONDS:
            self.system = await run_in_threadpool(self._read)
            self._at = time.monotonic()
        return self.system


def create_app(queue: Queue, served: Served, token: str, *, host: str = "127.0.0.1", seconds: float = 600) -> FastAPI:
    """The application; it closes `queue` when it ends. seconds: that a request may wait and draw.

    Errors: `UsageError` for a token short enough to be guessed, and for none where other machines can reach the server.
    """
    limits = limits_of(host, token, variable=TOKEN_VARIABLE, body_bytes=MAX_BYTES)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(queue.close)

    app = FastAPI(title="Images", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    began = int(time.time())

    @app.get("/healthz")
    async def health() -> dict[str, Any]:
        return {"ok": True, "workers": len(queue.workers), "drawing": queue.drawing, "waiting": queue.waiting}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        names = (ALIAS, (await served.now()).id)
        rows = [{"id": name, "object": "model", "created": began, "owned_by": "image-flywheel"} for name in names]
        return {"object": "list", "data": rows}

    @app.post("/v1/images/generations")
    async def generations(request: Request) -> JSONResponse:
        try:
            values = parse_json(await request.body())
        except ValueError as error:
            raise Refused(f"{error}: send a JSON object") from error
        return await answer(request, read_order(values))

    @app.post("/v1/images/edits")
    async def edits(request: Request) -> JSONResponse:
        texts, images, mask = await _edit_of(request)
        return await answer(request, await run_in_threadpool(read_order, texts, images=images, mask=mask))

    async def answer(request: Request, order: Order) -> JSONResponse:
        system = await served.now()
        if order.model not in ("", ALIAS, system.id):
            raise Refused(
                f"the model {order.model!r} is not served: use {ALIAS!r} or {system.id!r}",
                status=404, param="model", code="model_not_found",
            )  # fmt: skip
        if order.count > queue.limit + len(queue.workers):
            raise Refused(f"n: at most {queue.limit + len(queue.workers)} pictures fit into the queue", param="n")
        pictures = await _while_connected(request, queue.draw(jobs_of(order, system)), seconds)
        rows = [_row(picture, order.seed + n) for n, picture in enumerate(pictures)]
        return JSONResponse({"created": int(time.time()), "model": system.id, "data": rows})

    _say_errors(app, seconds)
    app.add_middleware(Guard, limits=replace(limits, open_paths=("/healthz",)), shape=error_body)
    return app


async def _edit_of(request: Request) -> tuple[dict[str, str], list[bytes], bytes | None]:
    """The texts of an edit's form, its pictures, and its mask. Errors: `Refused`."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Refused("send an edit as multipart/form-data, with its pictures as files named image[]")
    async with request.form(max_files=MAX_REFERENCES + 1, max_fields=_FIELDS) as form:
        texts = {k: v for k, v in form.multi_items() if isinstance(v, str)}
        files = [(k, v) for k, v in form.multi_items() if isinstance(v, UploadFile)]
        if named := [k for k in texts if k in ("image", "image[]", "mask")]:
            raise Refused(f"{named[0]}: send it as a file, not as text", param=named[0])
        if unknown := [k for k, _ in files if k not in ("image", "image[]", "mask")]:
            raise Refused(f"unknown file {unknown[0]!r}: send image[] and mask", param=unknown[0])
        images = [await v.read() for k, v in files if k != "mask"]
        masks = [await v.read() for k, v in files if k == "mask"]
    if len(masks) > 1:
        raise Refused("mask: send one", param="mask")
    return texts, images, masks[0] if masks else None


def jobs_of(order: Order, system: System) -> list[Job]:
    """A job per picture."""
    own = {k: getattr(order, k) for k in ("prompt", "size", "steps", "guidance", "negative", "references", "mask")}
    return [Job(system, seed=order.seed + n, **own) for n in range(order.count)]


def _row(picture: Picture, seed: int) -> dict[str, Any]:
    row = {"b64_json": base64.b64encode(picture.png).decode(), "seed": seed}
    return row | ({"revised_prompt": picture.rewritten} if picture.rewritten else {})


async def _while_connected(request: Request, drawing: Any, seconds: float) -> list[Picture]:
    """What `drawing` gives. Errors: `TimeoutError` after `seconds`, `Gone` if the client leaves before."""

    async def until_gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(drawing), asyncio.ensure_future(until_gone())
    try:
        done, _ = await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise TimeoutError
        if task not in done:
            raise Gone
        pictures: list[Picture] = task.result()
        return pictures
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def _say_errors(app: FastAPI, seconds: float) -> None:
    """Answer every error in OpenAI's shape."""

    def say(status: int, message: str, headers: dict[str, str] | None = None, **more: Any) -> JSONResponse:
        return JSONResponse(error_body(status, message, **more), status, headers)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        return say(error.status, error.message, param=error.param, code=error.code)

    @app.exception_handler(Full)
    async def full(request: Request, error: Full) -> JSONResponse:
        message = f"the queue is full: send it again in {error.seconds} s"
        return say(429, message, {"Retry-After": str(error.seconds)}, code="queue_full")

    @app.exception_handler(Failed)
    async def failed(request: Request, error: Failed) -> JSONResponse:
        return say(error.status, error.message, {"Retry-After": "5"} if error.status == 503 else None)

    @app.exception_handler(UsageError)
    async def unserved(request: Request, error: UsageError) -> JSONResponse:
        return say(503, str(error), {"Retry-After": "30"})

    @app.exception_handler(TimeoutError)
    async def late(request: Request, error: TimeoutError) -> JSONResponse:
        return say(503, f"the pictures were not drawn within {seconds:g} s: ask for fewer", {"Retry-After": "30"})

    @app.exception_handler(Gone)
    async def gone(request: Request, error: Gone) -> JSONResponse:
        return say(499, "the client left")

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        return say(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> JSONResponse:
        return say(500, f"the server failed ({type(error).__name__}): see its log")
