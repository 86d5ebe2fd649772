"""The arena: a blind pair, a vote, ratings of all battles. A vote is a battle as `flywheel arena import` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

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
from flywheel.signals.ratings import Battles, Rating, rate

CHOICES: Mapping[str, Winner] = {"left": "model_a", "right": "model_b", "tie": "tie", "bad": "tie (bothbad)"}


@dataclass(frozen=True)
class Shown:
    """A pair of pictures as a judge sees it: nothing says which model drew which."""

    battle_id: str
    prompt_id: str
    prompt: str


@dataclass(frozen=True)
class ArenaPage:
    """The next pair of two checkpoints for a judge, the last vote, and the ratings of one capability.

    known: checkpoints with pictures; references: of the pair; groups: capabilities with votes; unrated: why there are
    no ratings.
    """

    judge: str
    known: list[str]
    one: str
    other: str
    pair: Shown | None
    last: dict[str, Any] | None
    may: bool
    references: list[str]
    capability: str
    groups: list[str]
    ratings: list[Rating]
    unrated: str
    votes: int


def add(app: FastAPI, site: Site) -> None:
    """Add the routes."""
    workspace = site.workspace

    @site.page(app, "/arena", "arena.html", "/arena")
    def arena_page(
        request: Request, judge: str = "", one: str = "", other: str = "", capability: str = "overall", last: str = ""
    ) -> ArenaPage:
        """Ratings of checkpoints; for a judge, the next blind pair of checkpoints `one` and `other`."""
        name, may = reviewer_of(request.state.person, judge), request.state.person.may("review")
        return _page(site, name, may, one, other, capability, last)

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


def _page(site: Site, name: str, may: bool, one: str, other: str, capability: str, last: str) -> ArenaPage:
    """The page of a judge; one, other: the asked checkpoints, empty for the first and the last one."""
    known = contestants(site.workspace)
    one, other = one or (known[0] if known else ""), other or (known[-1] if len(known) > 1 else "")
    with site.catalog("battles") as con:
        cast = rows(con, 'SELECT * FROM battles ORDER BY "at"')
    ready = name and may and one in known and other in known and one != other
    pair = next_pair(site.workspace, name, one, other) if ready else None
    groups = battles(cast)
    ratings, unrated = _ratings(groups.get(capability))
    return ArenaPage(
        judge=name,
        known=known,
        one=one,
        other=other,
        pair=Shown(pair.battle_id, pair.prompt_id, pair.prompt) if pair else None,
        last=next((b for b in cast if b["battle_id"] == last), None) if last else None,
        may=may,
        references=list(references(site.workspace).get(pair.prompt_id, [])) if pair else [],
        capability=capability,
        groups=list(groups),
        ratings=ratings,
        unrated=unrated,
        votes=len(groups[capability].pairs) if capability in groups else 0,
    )


def _ratings(group: Battles | None) -> tuple[list[Rating], str]:
    """Ratings from the battles of one capability, and the reason why there are none."""
    if group is None:
        return [], ""
    try:
        return rate(group)[0], ""
    except UsageError as error:
        return [], str(error)
