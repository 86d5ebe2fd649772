"""Rewards over HTTP: GET /rewards lists their names, POST /score scores a batch of pictures."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from flywheel.core.errors import UsageError
from flywheel.core.guard import Guard, Limits, limits_of, parse_json
from training.rewards import TOKEN_VARIABLE, Rewards, decode

MAX_BYTES = 256 << 20  # of a request: a batch of pictures as base64
MAX_PICTURES = 1024  # of a request
_SHAPE = 'send {"requests": […]}, each with image, references, caption, task and checks; pictures as base64'


def service(rewards: Rewards, limits: Limits | None = None) -> FastAPI:
    """The application; `training.rewards.Service` is its client. Malformed requests get status 400."""
    app = FastAPI(title="image-flywheel rewards", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/rewards")
    def names() -> dict[str, Any]:
        return {"rewards": list(rewards.names)}

    @app.post("/score")
    async def score(request: Request) -> JSONResponse:
        try:
            body = parse_json(await request.body())
            if len(body["requests"]) > MAX_PICTURES:
                raise ValueError(f"more than {MAX_PICTURES} pictures")
            asked = [decode(r) for r in body["requests"]]
            return JSONResponse({"scores": await run_in_threadpool(rewards.score, asked)})
        except (KeyError, TypeError, AttributeError):
            return JSONResponse({"error": f"not a reward request: {_SHAPE}"}, 400)
        except (ValueError, UsageError) as error:
            return JSONResponse({"error": f"not a reward request: {error}"}, 400)

    app.add_middleware(Guard, limits=limits or Limits(body_bytes=MAX_BYTES))
    return app


def listening(rewards: Rewards, host: str, token: str) -> FastAPI:
    """The application for an address. Errors: `UsageError` for no token where other machines can reach it."""
    return service(rewards, limits_of(host, token, variable=TOKEN_VARIABLE, body_bytes=MAX_BYTES))
