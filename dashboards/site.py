"""What every page needs: the workspace, the templates, and the person behind the request."""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields
from functools import wraps
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment
from starlette.requests import ClientDisconnect

from dashboards.access import SESSION_SECONDS, Access, Person
from dashboards.images import picture
from dashboards.page import Image, environment
from dashboards.plain import plain
from dashboards.shapes import Box, Lasso, shape
from dashboards.turns import Turns
from flywheel.catalog import views
from flywheel.catalog.database import connect
from flywheel.core.serving import BODY_SECONDS
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

PAGES = (
    ("Overview", "/"),
    ("Failures", "/cases"),
    ("Compare", "/compare"),
    ("Review", "/review"),
    ("Arena", "/arena"),
    ("Playground", "/playground"),
    ("Calibration", "/calibration"),
    ("Data", "/funnel"),
    ("Samples", "/samples"),
    ("Map", "/map"),
    ("Sources", "/sources"),
    ("Coverage", "/coverage"),
    ("What if", "/what-if"),
    ("Training", "/training"),
    ("Cost", "/cost"),
    ("Why", "/why"),
    ("SQL", "/sql"),
)
API = "/api"  # before the path of each page: the same values as JSON
SHOT = 384  # pixels of a picture on a page, long side; the viewer opens it whole
FIELDS = 64  # at most, of a form


@dataclass(frozen=True)
class Site:
    """The parts of the application that pages share."""

    workspace: Workspace
    access: Access
    env: Environment
    turns: Turns = field(default_factory=Turns)

    @classmethod
    def of(cls, workspace: Workspace, access: Access) -> Site:
        """The site of a workspace."""
        return cls(workspace, access, environment(image=_address(workspace), link=_link, absent="not in the workspace"))

    def show(self, request: Request, template: str, here: str = "", status: int = 200, **values: Any) -> HTMLResponse:
        """Render a page. `here`: its entry in the navigation. A new visitor gets the session that forms need."""
        fresh = "" if self.access.has_session(request) or not self.access.open else self.access.start("")
        cookie = fresh or request.cookies.get(self.access.cookie, "")
        frame = {
            "workspace": self.workspace.root.name,
            "root": str(self.workspace.root),
            "title": "Flywheel",
            "here": here,
            "status": status,
            "pages_of_site": PAGES,
            "person": getattr(request.state, "person", None),
            "csrf": self.access.form_token(cookie),
        }
        response = HTMLResponse(self.env.get_template(template).render(frame | values), status)
        if fresh:
            self.set_session(response, request, fresh)
        return response

    def page(self, app: FastAPI, path: str, template: str, here: str = "") -> Callable[[Callable[..., Any]], Any]:
        """A decorator for the function of a page, which takes `request` and returns a dataclass of values.

        The template shows them at `path`; `/api` before the path gives the same values as JSON.
        """

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            app.get(path, response_model=None)(_answering(function, html))
            app.get(API + path.rstrip("/"), response_model=None)(_answering(function, json))
            return function

        def html(request: Request, record: Any) -> Response:
            values = {f.name: getattr(record, f.name) for f in fields(record)}
            return self.show(request, template, here, **values)

        def json(request: Request, record: Any) -> Response:
            return JSONResponse(plain(record))

        return register

    def failure(self, request: Request, status: int, message: str) -> Response:
        """What went wrong, as a page, or as JSON where that was asked for."""
        if asks_json(request):
            return JSONResponse({"error": message}, status)
        return self.show(request, "error.html", status=status, message=message)

    def set_session(self, response: Response, request: Request, value: str) -> None:
        """Set the session cookie. Scripts cannot read it, and requests from other sites do not carry it."""
        secure = request.url.scheme == "https"
        name, seconds = self.access.cookie, SESSION_SECONDS
        response.set_cookie(name, value, max_age=seconds, httponly=True, samesite="strict", secure=secure)

    @contextmanager
    def catalog(self, *names: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """The named views, or all, over the files as they are at this moment."""
        with closing(connect(self.workspace, names or views.ALL)) as con:
            yield con

    def needs(self, role: str) -> Callable[[Request], Person]:
        """A dependency that returns the person. Errors: 403 without the role."""

        def allowed(request: Request) -> Person:
            person: Person = request.state.person
            if not person.may(role):
                raise HTTPException(403, f"This needs the role {role}; your token has the role {person.role}.")
            return person

        return allowed

    def form(self, role: str) -> Callable[[Request], Awaitable[dict[str, str]]]:
        """A dependency that returns the fields of a form sent by our own page. Errors: 403."""
        allowed = self.needs(role)

        async def fields(request: Request) -> dict[str, str]:
            allowed(request)
            values = await read_form(request, FIELDS)
            self.require_genuine(request, values)
            return values

        return fields

    def require_genuine(self, request: Request, values: Mapping[str, str]) -> None:
        """Check that our own page sent the form. Errors: 403."""
        if not self.access.genuine(request, values.get("csrf", "")):
            raise HTTPException(403, "This form is too old, or not from this site: reload the page.")


def asks_json(request: Request) -> bool:
    """True for paths of the API."""
    return request.url.path == API or request.url.path.startswith(f"{API}/")


def _answering(function: Callable[..., Any], answer: Callable[[Request, Any], Response]) -> Callable[..., Any]:
    """The function of a route that answers with what `function` returns; FastAPI reads the parameters of `function`."""

    def timed(request: Request, record: Any, began: float) -> Response:
        ready = time.perf_counter()
        response = answer(request, record)
        request.state.spent = {"data": ready - began, "page": time.perf_counter() - ready}
        return response

    if inspect.iscoroutinefunction(function):

        async def respond(**values: Any) -> Response:
            began = time.perf_counter()
            return timed(values["request"], await function(**values), began)

    else:

        def respond(**values: Any) -> Response:  # type: ignore[misc]
            began = time.perf_counter()
            return timed(values["request"], function(**values), began)

    respond = wraps(function)(respond)
    signature = inspect.signature(function, eval_str=True)
    respond.__signature__ = signature.replace(return_annotation=inspect.Signature.empty)  # type: ignore[attr-defined]
    return respond


async def read_form(request: Request, most: int) -> dict[str, str]:
    """The texts of a form with at most that many fields. Errors: 400 for a form that is none, 408 for one too slow."""
    try:
        async with asyncio.timeout(BODY_SECONDS), request.form(max_files=0, max_fields=most) as form:
            return {k: v for k, v in form.items() if isinstance(v, str)}
    except TimeoutError as error:
        raise HTTPException(408, f"Send the whole form within {BODY_SECONDS:g} s.") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "The form broke off.") from error


def integer(text: str) -> int:
    """A query value as an integer from 0 to a billion. Errors: 404 for anything else."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise HTTPException(404, f"{text!r} is not a number.")
    return int(text)


def decimal(text: str) -> float:
    """A query value as a finite number. Errors: 404 for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise HTTPException(404, f"{text!r} is not a number.")
    return value


def part_of_map(text: str) -> Box | Lasso:
    """A query value as a part of the map. Errors: 404 for anything else."""
    try:
        return shape(text)
    except ValueError as error:
        raise HTTPException(404, str(error)) from error


def _address(workspace: Workspace) -> Image:
    def address(name: str | None, side: int = SHOT) -> str | None:
        return f"/files/{quote(name)}?side={side}" if name and picture(workspace, name) else None

    return address


def _link(kind: str, value: object) -> str:
    if kind == "why":
        return f"/why?{urlencode({'id': value})}"
    return f"/{kind}s/{quote(str(value), safe='')}"
