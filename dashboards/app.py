"""The dashboard: read-only pages over a workspace. Binds to loopback unless told otherwise."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException

from dashboards import cases, views, what_if
from dashboards.images import picture
from dashboards.page import STYLE, environment
from dashboards.rounds import counts
from flywheel import queries
from flywheel.catalog import ask, connect
from flywheel.mirror import fetched
from flywheel.rounds.lineage import why
from flywheel.views import ALL
from flywheel.workspace import UsageError, Workspace

if TYPE_CHECKING:
    import duckdb

PAGE = 48  # cases
CARDS = 48  # fixed and broken cases on a round's page
ROWS, SECONDS = 1000, 5.0  # of an answer of the SQL page

# Nothing but our own files may run, whatever a prompt or a file name contains.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(workspace: Workspace, *, page_size: int = PAGE) -> FastAPI:
    """The application; every request reads the files as they are at that moment. `page_size`: cases per page."""
    app = FastAPI(title="Flywheel", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(GZipMiddleware)
    app.mount("/static", StaticFiles(directory=STYLE.parent), name="static")
    env = environment(image=_address(workspace), link=_link)

    def catalog() -> Iterator[duckdb.DuckDBPyConnection]:
        con = connect(workspace)
        try:
            yield con
        finally:
            con.close()

    def show(template: str, here: str = "", status: int = 200, **values: Any) -> HTMLResponse:
        frame = {"workspace": workspace.root.name, "root": str(workspace.root), "title": "Flywheel", "here": here}
        return HTMLResponse(env.get_template(template).render(frame | values), status)

    @app.middleware("http")
    async def harden(request: Request, call_next: Any) -> Response:
        response = await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(AnyHTTPException)
    def failed(request: Request, error: AnyHTTPException) -> HTMLResponse:
        return show("error.html", status=error.status_code, message=str(error.detail))

    @app.get("/")
    def overview(con: Any = Depends(catalog)) -> HTMLResponse:
        return show("overview.html", "/", **views.overview(workspace, con))

    @app.get("/rounds/{number}")
    def round_page(number: str, con: Any = Depends(catalog)) -> HTMLResponse:
        found = [r for r in views.load_rounds(workspace, con) if str(r.number) == number]
        if not found:
            raise HTTPException(404, f"There is no finished round {number}.")
        view = views.round_view(workspace, con, found[-1], cards=CARDS)
        return show("round.html", view=view, references=cases.references(workspace))

    @app.get("/cases")
    def case_list(
        capability: str = "",
        track: str = "",
        status: str = "",
        round: str = "",
        page: str = "1",
        con: Any = Depends(catalog),
    ) -> HTMLResponse:
        chosen = {"capability": capability, "track": track, "status": status, "round": round}
        wanted = cases.CaseFilter(capability, track, status, _whole(round) if round else None)
        number = max(1, _whole(page))
        total, found = cases.list_cases(con, wanted, limit=page_size, offset=(number - 1) * page_size)

        def page_link(n: int) -> str:
            return "/cases?" + urlencode({k: v for k, v in chosen.items() if v} | {"page": n})

        return show(
            "cases.html",
            "/cases",
            cases=found,
            total=total,
            facets=cases.facets(con),
            chosen=chosen,
            page=number,
            pages=-(-total // page_size),
            page_link=page_link,
            references=cases.references(workspace),
        )

    @app.get("/cases/{case_id}")
    def case_page(case_id: str, con: Any = Depends(catalog)) -> HTMLResponse:
        case = cases.load_case(con, case_id)
        if case is None:
            raise HTTPException(404, f"There is no case {case_id}.")
        return show("case.html", case=case, references=cases.references(workspace))

    @app.get("/funnel")
    def funnel_page(con: Any = Depends(catalog)) -> HTMLResponse:
        return show("data.html", "/funnel", counts=counts(con), **views.data(con))

    @app.get("/what-if")
    def what_if_page(request: Request) -> HTMLResponse:
        asked = dict(request.query_params)
        found: dict[str, Any] = {"asked": asked, "policy": "", "sliders": [], "found": None, "fault": None}
        try:
            if base := what_if.current(workspace):
                found |= {"policy": base.policy.name, "sliders": what_if.sliders(workspace, base)}
                found["found"] = what_if.answer(workspace, base, asked)
        except UsageError as error:
            found["fault"] = str(error)
        return show("what_if.html", "/what-if", **found)

    @app.get("/why")
    def why_page(id: str = "") -> HTMLResponse:
        found = fault = None
        try:
            found = why(workspace, id) if id else None
        except UsageError as error:
            fault = str(error)
        details = {k: v for k, v in (found or {}).items() if k != "kind"}
        return show("why.html", "/why", asked=id, found=found, details=details, fault=fault)

    @app.get("/sql")
    def sql_page(q: str = "", ready: str = "") -> HTMLResponse:
        known = queries.ready()
        asked = q or (known[ready].sql.strip() if ready in known else "")
        answer = fault = None
        try:
            answer = ask(workspace, asked, rows=ROWS, seconds=SECONDS) if asked else None
        except UsageError as error:
            fault = str(error)
        values = {"ready": known.values(), "views": ALL, "rows": ROWS, "seconds": SECONDS}
        return show("sql.html", "/sql", asked=asked, answer=answer, fault=fault, **values)

    @app.get("/files/{name:path}")
    def file(name: str) -> FileResponse:
        path = picture(workspace, name)
        if path is None:
            raise HTTPException(404, "There is no such picture.")
        return FileResponse(fetched(path), headers={"Cache-Control": "private, max-age=3600"})  # artefacts never change

    return app


def serve(workspace: Workspace, host: str = "127.0.0.1", port: int = 8050) -> None:
    """Serve until interrupted; port 0 takes a free one. Errors: `UsageError` when it cannot listen there."""
    import uvicorn

    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        reason = f"cannot listen on {host}:{port} ({error.strerror})"
        raise UsageError(f"{reason}: choose another --host or --port") from error
    print(f"dashboard at http://{host}:{listener.getsockname()[1]}/ (Ctrl-C ends it)", file=sys.stderr, flush=True)
    uvicorn.Server(uvicorn.Config(create_app(workspace), log_level="warning")).run(sockets=[listener])


def _address(workspace: Workspace):
    def address(name: str | None, side: int = 0) -> str | None:
        return f"/files/{quote(name)}" if picture(workspace, name) else None

    return address


def _link(kind: str, value: object) -> str:
    if kind == "why":
        return f"/why?{urlencode({'id': value})}"
    return f"/{kind}s/{quote(str(value), safe='')}"


def _whole(text: str) -> int:
    """A query value as a number from 0 to a billion. Errors: 404 for anything else."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise HTTPException(404, f"{text!r} is no number.")
    return int(text)
