"""The arena: a blind pair, a vote, ratings of all battles. A vote is a battle as `flywheel arena import` reads it."""

from __future__ import annotations

from collections.abc import Mapping
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
from flywheel.signals.arena import Battle, Winner, battles, vote
from flywheel.signals.blind import Pair, contestants, find_pair, next_pair
from flywheel.signals.ratings import rate

CHOICES: Mapping[str, Winner] = {"left": "model_a", "right": "model_b", "tie": "tie", "bad": "tie (bothbad)"}


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
            votes = rows(con, 'SELECT * FROM battles ORDER BY "at"')
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
            last=next((b for b in votes if b["battle_id"] == last), None) if last else None,
            may=may,
            references=references(workspace),
            **_ratings(votes, capability),
        )

    @app.get("/arena/pictures/{battle_id}/{side}")
    def blind_picture(
        request: Request, battle_id: str, side: str, one: str, other: str, judge: str = ""
    ) -> Response:  # the file's own address would reveal the checkpoint
        pair = _shown_pair(request, judge, one, other, battle_id)
        path = picture(workspace, pair.image_a if side == "left" else pair.image_b)
        if path is None:
            raise HTTPException(404, "There is no such image.")
        return FileResponse(fetched(path))

    @app.post("/arena/vote")
    def cast_vote(request: Request, form: dict[str, str] = Depends(site.form("review"))) -> Response:
        judge, one, other = (form.get(k, "") for k in ("judge", "one", "other"))
        pair = _shown_pair(request, judge, one, other, form.get("battle", ""))
        winner = CHOICES.get(form.get("choice", ""))
        if winner is None:
            raise UsageError(f"unknown choice {form.get('choice')!r}: use one of {', '.join(CHOICES)}")
        name = reviewer_of(request.state.person, judge)
        about = {k: getattr(pair, k) for k in Battle.model_fields if k in Pair.__dataclass_fields__}
        served = incumbent(workspace)
        vote(workspace, Battle(winner=winner, judge=name, **about), model=served.checkpoint if served else None)
        query = {"judge": name, "one": one, "other": other, "last": pair.battle_id}
        return RedirectResponse("/arena?" + urlencode(query), 303)

    def _shown_pair(request: Request, judge: str, one: str, other: str, battle_id: str) -> Pair:
        pair = find_pair(workspace, reviewer_of(request.state.person, judge), one, other, battle_id)
        if pair is None:
            raise HTTPException(404, "You were not shown this pair.")
        return pair


def _ratings(votes: list[dict[str, Any]], capability: str) -> dict[str, Any]:
    """Ratings from the battles of one capability, or the reason why there are none."""
    groups = battles(votes)
    page: dict[str, Any] = {"capability": capability, "groups": list(groups), "ratings": [], "unrated": ""}
    if capability in groups:
        try:
            page["ratings"] = rate(groups[capability])[0]
        except UsageError as error:
            page["unrated"] = str(error)
    return page | {"votes": len(groups[capability].pairs) if capability in groups else 0}
