"""The playground: ask the image server for a picture or an edit, look at it, and say what is wrong with it."""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import Any
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from dashboards.site import FIELDS, Site
from dashboards.turns import Turns
from flywheel.core.errors import UsageError
from flywheel.core.serving import BODY_SECONDS
from flywheel.generators.endpoint import EndpointGenerator
from flywheel.rounds import playground
from flywheel.rounds.sample import parse_size, promoted_system

HERE = "/playground"
MAX_UPLOAD = 16 << 20  # bytes of a form with pictures
PICTURES = 4  # to edit, at most
TOGETHER = 16  # requests to the image server at a time; pages that ask questions have turns of their own
MODEL = "flywheel"  # the name under which `flywheel serve images` knows the system in service
TOKEN_VARIABLE = "FLYWHEEL_IMAGES_TOKEN"


def add(app: FastAPI, site: Site, images: str) -> None:
    """Add the routes. images: URL of the image server up to and including /v1; empty: none."""
    workspace, turns = site.workspace, Turns(asyncio.Semaphore(TOGETHER))

    def page(request: Request, fault: str = "", status: int = 200, **asked: Any) -> HTMLResponse:
        played = playground.load(workspace, asked.get("id", ""))
        return site.show(
            request,
            "playground.html",
            HERE,
            status,
            images=images,
            played=played,
            said=asked.get("said", ""),
            fault=fault,
            prompt=asked.get("prompt") or (played.prompt if played else ""),
            size=asked.get("size") or _side(site),
            may=request.state.person.may("review"),
        )

    @app.get(HERE)
    def playground_page(request: Request, id: str = "", said: str = "") -> HTMLResponse:
        return page(request, id=id, said=said)

    @app.post(HERE)
    async def draw(request: Request) -> Response:
        values, pictures = await _read(request)
        person = site.needs("review")(request)
        site.require_genuine(request, values)
        prompt, size = values.get("prompt", ""), values.get("size", "")
        try:
            if not images:
                raise UsageError("no image server is configured")
            async with turns.turn(person.name):
                played = await run_in_threadpool(
                    playground.play,
                    workspace,
                    _server(images),
                    prompt,
                    size=parse_size(size),
                    seed=secrets.randbelow(2**31 - 16),
                    pictures=pictures,
                )
        except UsageError as error:
            return await run_in_threadpool(page, request, f"{error}.", 422, prompt=prompt, size=size)
        return RedirectResponse(f"{HERE}?" + urlencode({"id": played.id}), 303)

    @app.post(f"{HERE}/answer")
    def answer(request: Request, form: dict[str, str] = Depends(site.form("review"))) -> Response:
        played = playground.load(workspace, form.get("id", ""))
        if played is None:
            raise HTTPException(404, "There is no such picture.")
        thumbs = form.get("thumbs", "")
        new = playground.answer(workspace, played, thumbs, form.get("reason", ""), by=request.state.person.name)
        return RedirectResponse(f"{HERE}?" + urlencode({"id": played.id, "said": thumbs if new else "before"}), 303)


def _server(url: str) -> EndpointGenerator:
    key = TOKEN_VARIABLE if os.environ.get(TOKEN_VARIABLE) else ""
    return EndpointGenerator(url=url, model=MODEL, key_variable=key, timeout=600, attempts=3, longest_wait=5)


def _side(site: Site) -> str:
    """The size that the system in service draws; 1024x1024 where that is not known."""
    try:
        side = promoted_system(site.workspace).side
    except UsageError:
        side = None
    return f"{side or 1024}x{side or 1024}"


async def _read(request: Request) -> tuple[dict[str, str], list[bytes]]:
    """The texts of a form, and its pictures. Errors: 400 for a form that is none, 408 for one too slow."""
    try:
        async with asyncio.timeout(BODY_SECONDS), request.form(max_files=PICTURES, max_fields=FIELDS) as form:
            texts = {k: v for k, v in form.items() if isinstance(v, str)}
            files = [v for v in form.getlist("picture") if isinstance(v, UploadFile)]
            return texts, [data for file in files if (data := await file.read())]
    except TimeoutError as error:
        raise HTTPException(408, f"Send the whole form within {BODY_SECONDS:g} s.") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "The form broke off.") from error
