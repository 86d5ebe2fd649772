"""What every page stands on: the workspace, its templates, and who is asking."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from fastapi import HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment

from dashboards.access import SESSION_SECONDS, Access, Person
from dashboards.images import picture
from dashboards.page import environment
from flywheel.catalog import views
from flywheel.catalog.database import connect
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

PAGES = (
    ("Overview", "/"),
    ("Failures", "/cases"),
    ("Review", "/review"),
    ("Arena", "/arena"),
    ("Data", "/funnel"),
    ("What if", "/what-if"),
    ("Training", "/training"),
    ("Why", "/why"),
    ("SQL", "/sql"),
)
FIELDS = 64  # of a form


@dataclass(frozen=True)
class Site:
    """The application's parts; a page asks for what it needs."""

    workspace: Workspace
    access: Access
    env: Environment

    @classmethod
    def of(cls, workspace: Workspace, access: Access) -> Site:
        """The site of a workspace."""
        return cls(workspace, access, environment(image=_address(workspace), link=_link))

    def show(self, request: Request, template: str, here: str = "", status: int = 200, **values: Any) -> HTMLResponse:
        """A page. `here`: its entry in the navigation. Gives a new visitor the session that forms need."""
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

    def set_session(self, response: Response, request: Request, value: str) -> None:
        """Give the browser its session: no script reads it, no other site's request carries it."""
        secure = request.url.scheme == "https"
        name, seconds = self.access.cookie, SESSION_SECONDS
        response.set_cookie(name, value, max_age=seconds, httponly=True, samesite="strict", secure=secure)

    @contextmanager
    def catalog(self, *names: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """The views that a page names, or all; as the files are at this moment."""
        with closing(connect(self.workspace, names or views.ALL)) as con:
            yield con

    def needs(self, role: str) -> Callable[[Request], Person]:
        """A dependency: who asks. Errors: 403 without the role."""

        def allowed(request: Request) -> Person:
            person: Person = request.state.person
            if not person.may(role):
                raise HTTPException(403, f"This needs the role {role}; your token has {person.role}.")
            return person

        return allowed

    def form(self, role: str) -> Callable[[Request], Awaitable[dict[str, str]]]:
        """A dependency: the fields of a form that our own page sent. Errors: 403."""
        allowed = self.needs(role)

        async def fields(request: Request) -> dict[str, str]:
            allowed(request)
            async with request.form(max_files=0, max_fields=FIELDS) as sent:
                found = {k: v for k, v in sent.items() if isinstance(v, str)}
            if not self.access.genuine(request, found.get("csrf", "")):
                raise HTTPException(403, "This form is too old, or not ours: load the page again.")
            return found

        return fields


def whole(text: str) -> int:
    """A query value as a number from 0 to a billion. Errors: 404 for anything else."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise HTTPException(404, f"{text!r} is no number.")
    return int(text)


def _address(workspace: Workspace):
    def address(name: str | None, side: int = 0) -> str | None:
        return f"/files/{quote(name)}" if picture(workspace, name) else None

    return address


def _link(kind: str, value: object) -> str:
    if kind == "why":
        return f"/why?{urlencode({'id': value})}"
    return f"/{kind}s/{quote(str(value), safe='')}"
