"""Two evaluations side by side, and a person's verdict on a picture, recorded where it is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from dashboards import compare
from dashboards.compare import SHOWN, Evaluation, Pair
from dashboards.paging import Paging
from dashboards.routes.review import reviewer_of
from dashboards.rows import rows
from dashboards.site import Site, integer
from flywheel.core.errors import UsageError
from flywheel.signals.human_verdicts import record

CHOICES = {"pass": True, "fail": False, "unsure": None}  # of a person who judges a check


@dataclass(frozen=True)
class ComparePage:
    """The pairs of pictures of two evaluations that differ, or all: broken ones first, then fixed ones.

    known: evaluations to choose from; one, other: names of the chosen ones, before and after; counts: pairs by change.
    """

    known: list[Evaluation]
    one: str
    other: str
    capability: str
    capabilities: list[str]
    show: str
    counts: dict[str, int]
    pairs: list[Pair]
    paging: Paging
    reviewer: str


def add(app: FastAPI, site: Site, *, page_size: int) -> None:
    """Add the routes. `page_size`: pairs of pictures per page."""

    @site.page(app, "/compare", "compare.html", "/compare")
    def compare_page(
        request: Request,
        one: str = "",
        other: str = "",
        capability: str = "",
        show: str = "changed",
        page: str = "1",
        reviewer: str = "",
    ) -> ComparePage:
        """Two evaluations, `one` before and `other` after (as `2-candidate`), pair by pair; `show`: which pairs."""
        if show not in SHOWN:
            raise HTTPException(404, f"{show!r} is unknown: show one of {', '.join(SHOWN)}.")
        number, counts, pairs = max(1, integer(page)), dict[str, int](), list[Pair]()
        with site.catalog("signals", "rounds", "human_verdicts") as con:
            known = compare.evaluations(con)
            incumbents = {r["round"]: r["incumbent"] for r in rows(con, "SELECT round, incumbent FROM rounds")}
            before, after = compare.proposed(known, incumbents, other)
            one, other = one or before, after
            named = [_named(known, name) for name in (one, other) if name]
            tested = compare.capabilities(con, *named) if len(named) == 2 else []
            if len(named) == 2 and one != other:
                wanted: dict[str, Any] = {"capability": capability, "show": show, "limit": page_size}
                counts, pairs = compare.compare(con, *named, **wanted, offset=(number - 1) * page_size)
        total = sum(n for k, n in counts.items() if show in (k, "all") or (show == "changed" and k in SHOWN[1:3]))
        chosen = {"one": one, "other": other, "capability": capability, "show": show, "reviewer": reviewer}
        paging = Paging("/compare", chosen, total, number, page_size)
        name = reviewer_of(request.state.person, reviewer)
        return ComparePage(known, one, other, capability, tested, show, counts, pairs, paging, name)

    @app.post("/compare/judge")
    def judge(request: Request, form: dict[str, str] = Depends(site.form("review"))) -> Response:
        signal_id, _, image = form.get("check", "").partition(" ")
        name = reviewer_of(request.state.person, form.get("reviewer", ""))
        record(site.workspace, signal_id, image, choice(form), name, blind=False, why=form.get("why", ""))
        query = dict(parse_qsl(form.get("back", ""))) | {"reviewer": name}
        return RedirectResponse(f"/compare?{urlencode(query)}#{form.get('card', '')}", 303)


def choice(form: dict[str, str]) -> bool | None:
    """The verdict in a form. Errors: `UsageError` for none."""
    if (chosen := form.get("choice", "")) not in CHOICES:
        raise UsageError(f"unknown choice {chosen!r}: use one of {', '.join(CHOICES)}")
    return CHOICES[chosen]


def _named(known: list[Evaluation], name: str) -> Evaluation:
    found = [e for e in known if e.name == name]
    if not found:
        raise HTTPException(404, f"There is no evaluation {name}.")
    return found[0]
