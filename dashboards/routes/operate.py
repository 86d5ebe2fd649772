"""What changes which checkpoint is in service: a person's decision about a round, as `flywheel round` records it."""

from __future__ import annotations

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from dashboards.site import Site, whole
from flywheel.core.errors import UsageError
from flywheel.core.schema import DECISIONS
from flywheel.rounds.promotion import decide


def add(app: FastAPI, site: Site) -> None:
    """Add the routes."""

    @app.post("/rounds/{number}/decision")
    def decision(request: Request, number: str, sent: dict[str, str] = Depends(site.form("operate"))) -> Response:
        kind = sent.get("kind", "")
        if kind not in DECISIONS:
            raise UsageError(f"kind {kind!r}: one of {', '.join(DECISIONS)}")
        decide(site.workspace, kind, whole(number), by=request.state.person.name, why=sent.get("why", ""))
        return RedirectResponse(f"/rounds/{number}", 303)
