"""Pages that answer questions: what other thresholds would admit, lineage, and any SELECT."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

from dashboards import what_if
from dashboards.site import Site
from flywheel.catalog import queries
from flywheel.catalog.database import ask
from flywheel.catalog.lineage import why
from flywheel.catalog.views import ALL
from flywheel.core.errors import UsageError

ROWS, SECONDS = 1000, 5.0  # limits of an answer on the SQL page


def add(app: FastAPI, site: Site) -> None:
    """Add the routes."""
    workspace = site.workspace

    @app.get("/what-if")
    def what_if_page(request: Request) -> HTMLResponse:
        asked = dict(request.query_params)
        page: dict[str, Any] = {"asked": asked, "policy": "", "sliders": [], "answer": None, "fault": None}
        try:
            if base := what_if.current(workspace):
                page |= {"policy": base.policy.name, "sliders": what_if.sliders(workspace, base)}
                page["answer"] = what_if.answer(workspace, base, asked)
        except UsageError as error:
            page["fault"] = str(error)
        return site.show(request, "what_if.html", "/what-if", **page)

    @app.get("/why")
    def why_page(request: Request, id: str = "") -> HTMLResponse:
        lineage = fault = None
        try:
            lineage = why(workspace, id) if id else None
        except UsageError as error:
            fault = str(error)
        details = {k: v for k, v in (lineage or {}).items() if k != "kind"}
        return site.show(request, "why.html", "/why", asked=id, lineage=lineage, details=details, fault=fault)

    @app.get("/sql")
    def sql_page(request: Request, q: str = "", ready: str = "") -> HTMLResponse:
        known = queries.ready()
        asked = q or (known[ready].sql.strip() if ready in known else "")
        answer = fault = None
        try:
            answer = ask(workspace, asked, rows=ROWS, seconds=SECONDS) if asked else None
        except UsageError as error:
            fault = str(error)
        values: dict[str, Any] = {"ready": known.values(), "views": ALL, "rows": ROWS, "seconds": SECONDS}
        return site.show(request, "sql.html", "/sql", asked=asked, answer=answer, fault=fault, **values)
