"""For operators: decisions about rounds, recorded as by `flywheel round`, and whether the dashboard can work."""

from __future__ import annotations

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from dashboards.site import Site, integer
from flywheel.core.errors import UsageError
from flywheel.core.schema import DECISIONS
from flywheel.rounds.promotion import decide


def add(app: FastAPI, site: Site) -> None:
    """Add the routes."""

    @app.post("/rounds/{number}/decision")
    def decision(request: Request, number: str, form: dict[str, str] = Depends(site.form("operate"))) -> Response:
        kind = form.get("kind", "")
        if kind not in DECISIONS:
            raise UsageError(f"unknown decision {kind!r}: use one of {', '.join(DECISIONS)}")
        decide(site.workspace, kind, integer(number), by=request.state.person.name, why=form.get("why", ""))
        return RedirectResponse(f"/rounds/{number}", 303)

    @app.get("/healthz")
    def healthz() -> Response:
        """Whether the workspace can be read: 200 or 503, for probes; tells nothing else."""
        try:
            there = site.workspace.path("workspace.json").exists()
        except OSError:
            there = False
        return JSONResponse({"status": "ok" if there else "the workspace cannot be read"}, 200 if there else 503)
