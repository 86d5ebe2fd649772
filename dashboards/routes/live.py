"""The run that works now: a strip that renews itself while there is one, and a form that stops it."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from dashboards.site import Site
from flywheel.rounds.live import Live, Watch, ask_to_stop


@dataclass(frozen=True)
class LivePage:
    """The run that works on the workspace; none: nothing runs."""

    live: Live | None


def add(app: FastAPI, site: Site, watch: Watch) -> None:
    """Add the routes."""

    @site.page(app, "/live", "live.html")
    def live_page(request: Request) -> LivePage:
        """What runs now: step, progress, time left, host and last lines. Reads three small files."""
        return LivePage(watch.look())

    @app.post("/live/stop")
    def stop(request: Request, form: dict[str, str] = Depends(site.form("operate"))) -> Response:
        ask_to_stop(site.workspace, by=request.state.person.name, why=form.get("why", ""))
        return RedirectResponse("/live", 303)
