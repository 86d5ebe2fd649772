"""Pages that everybody may view: overview, rounds, cases, data, training, images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, Response

from dashboards import cases, samples, training, views
from dashboards.images import picture, shrink
from dashboards.rounds import counts
from dashboards.rows import rows
from dashboards.site import Site, integer
from flywheel.core.mirror import fetched

CARDS = 48  # fixed cases, and broken cases, on a round's page
KEPT = {"Cache-Control": "private, max-age=3600"}  # pictures never change
SHOWN_RUNS = 3  # training runs shown by default


def add(app: FastAPI, site: Site, *, page_size: int) -> None:
    """Add the routes. `page_size`: cases per page."""
    _add_rounds(app, site)
    _add_cases(app, site, page_size)
    _add_data(app, site)
    _add_samples(app, site, page_size)


def _add_rounds(app: FastAPI, site: Site) -> None:
    workspace = site.workspace

    @app.get("/")
    def overview(request: Request) -> HTMLResponse:
        with site.catalog("rounds", "snapshots", "cases", "signals", "generated") as con:
            return site.show(request, "overview.html", "/", **views.overview(workspace, con))

    @app.get("/rounds/{number}")
    def round_page(request: Request, number: str) -> HTMLResponse:
        with site.catalog("rounds", "promotions", "cases", "signals", "generated") as con:
            matches = [r for r in views.load_rounds(workspace, con) if str(r.number) == number]
            if not matches:
                raise HTTPException(404, f"There is no finished round {number}.")
            view = views.round_view(workspace, con, matches[-1], cards=CARDS)
            decisions = rows(con, 'SELECT * FROM promotions WHERE round = ? ORDER BY "at"', [view.round.number])
        references = cases.references(workspace)
        return site.show(request, "round.html", view=view, decisions=decisions, references=references)


def _add_cases(app: FastAPI, site: Site, page_size: int) -> None:
    workspace = site.workspace

    @app.get("/cases")
    def case_list(
        request: Request,
        capability: str = "",
        track: str = "",
        status: str = "",
        round: str = "",
        checkpoint: str = "",
        page: str = "1",
    ) -> HTMLResponse:
        chosen = {"capability": capability, "track": track, "status": status, "round": round, "checkpoint": checkpoint}
        wanted = cases.CaseFilter(capability, track, status, integer(round) if round else None, checkpoint)
        number = max(1, integer(page))
        with site.catalog("cases", "case_events", "signals", "rounds") as con:
            total, listed = cases.list_cases(con, wanted, limit=page_size, offset=(number - 1) * page_size)
            facets = cases.facets(con)
        return site.show(
            request,
            "cases.html",
            "/cases",
            cases=listed,
            facets=facets,
            **paged("/cases", chosen, total, number, page_size),
            references=cases.references(workspace),
        )

    @app.get("/cases/{case_id}")
    def case_page(request: Request, case_id: str) -> HTMLResponse:
        with site.catalog("cases", "case_events", "signals", "probes", "reviews", "generated") as con:
            case = cases.load_case(workspace, con, case_id)
        if case is None:
            raise HTTPException(404, f"There is no case {case_id}.")
        return site.show(request, "case.html", "/cases", case=case, references=cases.references(workspace))


def _add_data(app: FastAPI, site: Site) -> None:
    workspace = site.workspace

    @app.get("/funnel")
    def funnel_page(request: Request) -> HTMLResponse:
        with site.catalog("snapshots", "funnel", "decisions", "quarantine") as con:
            return site.show(request, "data.html", "/funnel", counts=counts(con), **views.data(workspace, con))

    @app.get("/training")
    def training_page(
        request: Request, metric: str = "loss", run: Annotated[list[str] | None, Query()] = None
    ) -> HTMLResponse:
        names = training.run_names(workspace)
        chosen = run or names[:SHOWN_RUNS]
        recorded, runs = training.load_runs(workspace, chosen, metric)
        return site.show(
            request,
            "training.html",
            "/training",
            chart=training.chart(runs),
            names=names,
            chosen=chosen,
            metric=metric,
            recorded=recorded,
            runs=runs,
        )

    @app.get("/files/{name:path}")
    def file(name: str, side: str = "") -> Response:
        path = picture(workspace, name)
        if path is None:
            raise HTTPException(404, "There is no such image.")
        if side:
            content, kind = shrink(fetched(path), _side(side))
            return Response(content, media_type=kind, headers=KEPT)
        return FileResponse(fetched(path), headers=KEPT)


def _add_samples(app: FastAPI, site: Site, page_size: int) -> None:
    workspace = site.workspace

    @app.get("/samples")
    def sample_list(
        request: Request, outcome: str = "", stage: str = "", filter: str = "", text: str = "", page: str = "1"
    ) -> HTMLResponse:
        chosen = {"outcome": outcome, "stage": stage, "filter": filter, "text": text.strip()}
        number = max(1, integer(page))
        with site.catalog("decisions", "samples") as con:
            wanted = samples.SampleFilter(**chosen)
            total, listed = samples.list_samples(con, wanted, limit=page_size, offset=(number - 1) * page_size)
            facets = samples.facets(con)
        return site.show(
            request,
            "samples.html",
            "/samples",
            samples=listed,
            facets=facets,
            **paged("/samples", chosen, total, number, page_size),
        )

    @app.get("/samples/{sample_id}")
    def sample_page(request: Request, sample_id: str) -> HTMLResponse:
        sample = samples.load_sample(workspace, sample_id)
        if sample is None:
            raise HTTPException(404, f"There is no decided sample {sample_id}.")
        return site.show(request, "sample.html", "/samples", sample=sample)

    @app.get("/pictures/{shard}/{row}")
    def sample_picture(shard: str, row: str, side: str = "192") -> Response:
        found = samples.sample_picture(workspace, shard, integer(row), _side(side))
        if found is None:
            raise HTTPException(404, "There is no such image.")
        return Response(found[0], media_type=found[1], headers=KEPT)


def paged(place: str, chosen: Mapping[str, str], total: int, number: int, size: int) -> dict[str, Any]:
    """What the templates of long lists show of page `number`: totals, the chosen filters and links to other pages."""

    def page_link(n: int) -> str:
        return f"{place}?" + urlencode({k: v for k, v in chosen.items() if v} | {"page": n})

    return {"total": total, "chosen": chosen, "page": number, "pages": -(-total // size), "page_link": page_link}


def _side(text: str) -> int:
    """The long side of a thumbnail. Errors: 404 for a size that no page uses."""
    if (side := integer(text)) not in samples.SIDES:
        raise HTTPException(404, f"Choose a side of {', '.join(map(str, samples.SIDES))} pixels.")
    return side
