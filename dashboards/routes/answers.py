"""Answers to cases that wait for a person. Recorded as by `flywheel review case`."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from dashboards import cases
from dashboards.routes.review import reviewer_of
from dashboards.site import Site
from flywheel.cases.answers import answer
from flywheel.core.errors import UsageError

DISMISS = "dismiss"  # in place of a track


def add(app: FastAPI, site: Site) -> None:
    """Add the routes."""

    @app.post("/cases/{case_id}/answer")
    def answer_case(request: Request, case_id: str, form: dict[str, str] = Depends(site.form("review"))) -> Response:
        name, chosen = reviewer_of(request.state.person, form.get("reviewer", "")), form.get("answer", "")
        with site.catalog("cases", "case_events") as con:
            now = cases.last_event(con, case_id)
        if now != form.get("seen"):
            raise UsageError(f"case {case_id} changed after this page was made: look at it again, then answer")
        answer(site.workspace, case_id, track=None if chosen == DISMISS else chosen, by=name, why=form.get("why", ""))
        back = dict(parse_qsl(form.get("back", "")))
        if not back:
            return RedirectResponse(f"/cases/{case_id}?" + urlencode({"reviewer": name}), 303)
        return RedirectResponse("/cases?" + urlencode(back | {"answered": case_id, "reviewer": name}), 303)
