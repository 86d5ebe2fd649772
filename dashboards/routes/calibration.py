"""Calibration: verifiers beside blind verdicts of people, and the next picture to judge blind."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from dashboards.cases import references
from dashboards.routes.compare import choice
from dashboards.routes.review import reviewer_of
from dashboards.site import Site
from flywheel.signals.human_verdicts import Task, next_task, record
from flywheel.signals.trust import BOUND, FEWEST, Trust, load_trust


@dataclass(frozen=True)
class CalibrationPage:
    """Every verifier beside people, and what `reviewer` is to judge of `verifier`; no task says what it decided.

    bound, fewest: the rule by which a verifier is trusted; references: workspace paths of the task's references.
    """

    verifiers: list[Trust]
    bound: float
    fewest: int
    verifier: str
    reviewer: str
    may: bool
    task: Task | None
    references: list[str]


def add(app: FastAPI, site: Site) -> None:
    """Add the routes."""
    workspace = site.workspace

    @site.page(app, "/calibration", "calibration.html", "/calibration")
    def calibration_page(request: Request, verifier: str = "", reviewer: str = "") -> CalibrationPage:
        """How often each verifier is right; for a reviewer, the next picture of `verifier` to judge blind."""
        name, may = reviewer_of(request.state.person, reviewer), request.state.person.may("review")
        known = load_trust(workspace)
        if verifier and verifier not in {t.verifier for t in known}:
            raise HTTPException(404, f"No verifier {verifier} judged a picture.")
        task = next_task(workspace, name, verifier) if name and may and verifier else None
        shown = list(references(workspace).get(task.prompt_id, [])) if task else []
        return CalibrationPage(known, BOUND, FEWEST, verifier, name, may, task, shown)

    @app.post("/calibration/judge")
    def judge(request: Request, form: dict[str, str] = Depends(site.form("review"))) -> Response:
        name = reviewer_of(request.state.person, form.get("reviewer", ""))
        record(workspace, form.get("signal", ""), form.get("image", ""), choice(form), name, blind=True)
        query = {"verifier": form.get("verifier", ""), "reviewer": name}
        return RedirectResponse("/calibration?" + urlencode(query), 303)
