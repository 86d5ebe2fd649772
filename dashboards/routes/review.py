"""The review queue: claim a sample, look at it, decide. Recorded as by `flywheel review`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from dashboards.access import Person
from dashboards.cases import count_open
from dashboards.site import Site
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace
from flywheel.remedies.data import picture_of
from flywheel.remedies.review import Item, Queue, held_by, status

HOUSEKEEPING = ("case", "reviews", "claim_minutes")  # in an item's evidence, but not about its quality


@dataclass(frozen=True)
class ReviewPage:
    """The sample that a reviewer holds, with the workspace paths of its pictures, and the queue by round."""

    reviewer: str
    item: Item | None
    pictures: list[str]
    evidence: dict[str, Any]
    queue: list[dict[str, Any]]
    may: bool
    cases: int  # that wait for an answer


def add(app: FastAPI, site: Site) -> None:
    """Add the routes."""
    workspace = site.workspace

    @site.page(app, "/review", "review.html", "/review")
    def queue_page(request: Request, reviewer: str = "") -> ReviewPage:
        """The review queue, and the sample that the reviewer holds."""
        name, items = reviewer_of(request.state.person, reviewer), Queue(workspace).items().values()
        may = request.state.person.may("review")
        item = held_by(name, items) if name and may else None
        pictures = _pictures(workspace, item) if item else []
        shown = {k: v for k, v in item.evidence.items() if k not in HOUSEKEEPING} if item else {}
        with site.catalog("cases") as con:
            waiting = count_open(con, "human")
        return ReviewPage(name, item, pictures, shown, status(items), may, waiting)

    @app.post("/review/claim")
    def claim(request: Request, form: dict[str, str] = Depends(site.form("review"))) -> Response:
        name = reviewer_of(request.state.person, form.get("reviewer", ""))
        Queue(workspace).next(name)
        return _back(name)

    @app.post("/review/decide")
    def decide(request: Request, form: dict[str, str] = Depends(site.form("review"))) -> Response:
        name, queue = reviewer_of(request.state.person, form.get("reviewer", "")), Queue(workspace)
        item, caption = form.get("item", ""), form.get("caption", "").strip()
        match form.get("decision"):
            case "accept":
                edited = caption if caption and caption != queue.find(item).caption else None
                queue.decide(item, "accepted", name, caption=edited)
            case "reject":
                queue.decide(item, "rejected", name, reason=form.get("reason", "").strip())
            case decision:
                raise UsageError(f"unknown decision {decision!r}: use accept or reject")
        queue.next(name)
        return _back(name)


def reviewer_of(person: Person, entered: str) -> str:
    """The name for the ledger: the owner of the token or, without tokens, the name that was entered."""
    return person.name or entered.strip()


def _back(name: str) -> Response:
    return RedirectResponse("/review?" + urlencode({"reviewer": name}), 303)


def _pictures(workspace: Workspace, item: Item) -> list[str]:
    """Workspace paths of the sample's image and of its references."""
    return [str(p.relative_to(workspace.root)) for p in picture_of(workspace, item)]
