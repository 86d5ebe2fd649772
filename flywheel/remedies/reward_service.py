"""Rewards over HTTP: GET /rewards lists their names, POST /score scores a batch of pictures."""

from __future__ import annotations

from typing import Any

from fastapi import Body, FastAPI, HTTPException

from flywheel.core.errors import UsageError
from training.rewards import Rewards, decode


def service(rewards: Rewards) -> FastAPI:
    """The application; `training.rewards.Service` is its client. Malformed requests get status 400."""
    app = FastAPI(title="image-flywheel rewards", docs_url=None, redoc_url=None)

    @app.get("/rewards")
    def names() -> dict[str, Any]:
        return {"rewards": list(rewards.names)}

    @app.post("/score")
    def score(body: dict[str, Any] = Body()) -> dict[str, Any]:
        try:
            return {"scores": rewards.score([decode(r) for r in body["requests"]])}
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise HTTPException(400, f"not a reward request ({type(error).__name__}: {error})") from error

    return app
