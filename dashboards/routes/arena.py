"""The arena: a blind pair, a vote, ratings of all battles. Votes are battles as `flywheel arena import` reads them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from dashboards.cases import references
from dashboards.images import picture
from dashboards.routes.review import reviewer_of
from dashboards.rows import rows
from dashboards.site import Site
from flywheel.core.errors import UsageError
from flywheel.core.mirror import fetched
from flywheel.rounds.promotion import incumbent
from flywheel.signals.arena import Battle, battles, vote
from flywheel.signals.blind import Pair, contestants, find_pair, next_pair
from flywheel.signals.ratings import rate

CHOICES = {"left": "model_a", "right": "model_b", "tie": "tie", "bad": "tie (bothbad)"}


def add(app: FastAPI, site: Site) -> None:
    """Add the routes."""
    workspace = site.workspace

    @app.get("/arena")
    def arena_page(
        request: Request, judge: str = "", one: str = "", other: str = "", capability: str = "overall", last: str = ""
    ) -> HTMLResponse:
        name, may = reviewer_of(request.state.person, judge), request.state.person.may("review")
        known = contestants(workspace)
        one, other = one or (known[0] if known else ""), other or (known[-1] if len(known) > 1 else "")
        with site.catalog("battles") as con:
            cast = rows(con, 'SELECT * FROM battles ORDER BY "at"')
        ready = name and may and one in known and other in known and one != other
        return site.show(
            request,
            "arena.html",
            "/arena",
            judge=name,
            known=known,
            one=one,
            other=other,
            pair=next_pair(workspace, name, one, other) if ready else None,
            last=next((b for b in cast if b["battle_id"] == last), None) if last else None,
            may=may,
            references=references(workspace),
            **_ratings(cast, capability),
        )

    @app.get("/arena/pictures/{battle_id}/{side}")
    def blind_picture(
        request: Request, battle_id: str, side: str, one: str, other: str, judge: str = ""
    ) -> Response:  # the file's own address would say whose it is
        pair = _shown(request, judge, one, other, battle_id)
        path = picture(workspace, pair.image_a if side == "left" else pair.image_b)
        if path is None:
            raise HTTPException(404, "There is no such picture.")
        return FileResponse(fetched(path))

    @app.post("/arena/vote")
    def cast_vote(request: Request, sent: dict[str, str] = Depends(site.form("review"))) -> Response:
        judge, one, other = (sent.get(k, "") for k in ("judge", "one", "other"))
        pair = _shown(request, judge, one, other, sent.get("battle", ""))
        winner = CHOICES.get(sent.get("choice", ""))
        if winner is None:
            raise UsageError(f"choice {sent.get('choice')!r}: one of {', '.join(CHOICES)}")
        name = reviewer_of(request.state.person, judge)
        about = {k: getattr(pair, k) for k in Battle.model_fields if k in Pair.__dataclass_fields__}
        service = incumbent(workspace)
        vote(workspace, Battle(winner=winner, judge=name, **about), model=service and service.checkpoint)
        asked = {"judge": name, "one": one, "other": other, "last": pair.battle_id}
        return RedirectResponse("/arena?" + urlencode(asked), 303)

    def _shown(request: Request, judge: str, one: str, other: str, battle_id: str) -> Pair:
        pair = find_pair(workspace, reviewer_of(request.state.person, judge), one, other, battle_id)
        if pair is None:
            raise HTTPException(404, "You were not shown such a pair.")
        return pair


def _ratings(cast: list[dict[str, Any]], capability: str) -> dict[str, Any]:
    """Ratings of one capability's battles, or why there are none."""
    groups = battles(cast)
    found: dict[str, Any] = {"capability": capability, "groups": list(groups), "ratings": [], "unrated": ""}
    if capability in groups:
        try:
            found["ratings"] = rate(groups[capability])[0]
        except UsageError as error:
            found["unrated"] = str(error)
    return found | {"votes": len(groups[capability].pairs) if capability in groups else 0}
