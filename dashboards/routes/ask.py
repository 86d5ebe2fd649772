"""Pages that answer questions: what other thresholds would admit, lineage, and any SELECT."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool

from dashboards import questions
from dashboards.questions import ROWS, SECONDS
from dashboards.site import Site
from flywheel.catalog import queries
from flywheel.catalog.views import ALL
from flywheel.core.errors import UsageError

COSTLY = ("/what-if", "/why", "/sql")  # pages that no other site may send a visitor to


def add(app: FastAPI, site: Site) -> None:
    """Add the routes."""
    root = str(site.workspace.root)

    async def answered(request: Request, question: Any, *arguments: Any) -> tuple[Any, str | None]:
        """(answer, None), or (None, fault); waits for the person's turn."""
        async with site.turns.turn(request.state.person.name):
            try:
                return await run_in_threadpool(question, root, *arguments), None
            except UsageError as error:
                return None, str(error)

    @app.get("/what-if")
    async def what_if_page(request: Request) -> HTMLResponse:
        asked = dict(request.query_params)
        page, fault = await answered(request, questions.thresholds, asked)
        empty: dict[str, Any] = {"policy": "", "sliders": [], "answer": None, "fault": fault}
        return site.show(request, "what_if.html", "/what-if", asked=asked, **(page or empty))

    @app.get("/why")
    async def why_page(request: Request, id: str = "") -> HTMLResponse:
        lineage, fault = await answered(request, questions.lineage, id) if id else (None, None)
        details = {k: v for k, v in (lineage or {}).items() if k != "kind"}
        return site.show(request, "why.html", "/why", asked=id, lineage=lineage, details=details, fault=fault)

    @app.get("/sql")
    async def sql_page(request: Request, q: str = "", ready: str = "") -> HTMLResponse:
        known = queries.ready()
        asked = q or (known[ready].sql.strip() if ready in known else "")
        answer, fault = await answered(request, questions.sql, asked) if asked else (None, None)
        values: dict[str, Any] = {"ready": known.values(), "views": ALL, "rows": ROWS, "seconds": SECONDS}
        return site.show(request, "sql.html", "/sql", asked=asked, answer=answer, fault=fault, **values)
