"""Pages that everybody may view: overview, rounds, cases, data, training, images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, Response

from dashboards import cases, training, views
from dashboards.case_filter import ORDERS, CaseFilter
from dashboards.images import picture, shrink
from dashboards.paging import Paging
from dashboards.routes.downloads import add_files
from dashboards.routes.review import reviewer_of
from dashboards.routes.samples import KEPT, thumbnail_side
from dashboards.rows import Row, rows
from dashboards.site import Site, integer, part_of_map
from flywheel.core.mirror import fetched
from flywheel.core.records import RoundPlan
from flywheel.rounds.live import Live, Watch

CARDS = 48  # fixed cases, and broken cases, on a round's page
SHOWN_RUNS = 3  # training runs shown by default

References = Mapping[str, list[str]]  # prompt id → workspace paths of its reference pictures


@dataclass(frozen=True)
class OverviewPage(views.Overview):
    """The first screen; live: the run that works now."""

    live: Live | None


@dataclass(frozen=True)
class RoundPage:
    """One round: its verdict, plan, changed cases, remedies and curves; decisions: of release owners.

    view: None until it has finished; plan: of a round that has not; live: the run that works on it.
    """

    number: int
    view: views.RoundView | None
    decisions: list[Row]
    references: References
    plan: RoundPlan | None
    live: Live | None


@dataclass(frozen=True)
class CasesPage:
    """Cases that match the filters, with evidence and history; facets: values of each filter; orders: ways to sort.

    reviewer: the name under which this visitor answers; answered: the case that was just answered, by whom and why.
    """

    cases: list[Row]
    facets: dict[str, list[Row]]
    orders: list[str]
    paging: Paging
    references: References
    reviewer: str
    answered: Row | None


@dataclass(frozen=True)
class CasePage:
    """One case with all its tests, probes, reviews, remedies and events; reviewer: who would answer it."""

    case: Row
    references: References
    reviewer: str


@dataclass(frozen=True)
class TrainingPage:
    """Curves of one metric of some training runs; names: of all runs; recorded: metrics of the chosen ones."""

    names: list[str]
    chosen: list[str]
    metric: str
    recorded: list[str]
    runs: list[training.Run]
    chart: str


def add(app: FastAPI, site: Site, watch: Watch, *, page_size: int) -> None:
    """Add the routes. `page_size`: cases per page."""
    _add_rounds(app, site, watch)
    _add_cases(app, site, page_size)
    _add_data(app, site)


def _add_rounds(app: FastAPI, site: Site, watch: Watch) -> None:
    workspace = site.workspace

    @site.page(app, "/", "overview.html", "/")
    def overview(request: Request) -> OverviewPage:
        """Rounds with their verdicts and rates, counts of the latest snapshot, cases by track, and what runs now."""
        with site.catalog("rounds", "snapshots", "cases", "signals", "generated") as con:
            return OverviewPage(**vars(views.overview(workspace, con)), live=watch.look())

    @site.page(app, "/rounds/{number}", "round.html")
    def round_page(request: Request, number: str) -> RoundPage:
        """One round, by its number; of one that has not finished, its plan and what runs now."""
        wanted, live = integer(number), watch.look()
        live = live if live and live.round == wanted else None
        with site.catalog("rounds", "promotions", "cases", "signals", "generated") as con:
            matches = [r for r in views.load_rounds(workspace, con) if r.number == wanted]
            if not matches:
                plan = workspace.round(wanted).plan
                if not live and not plan.exists():
                    raise HTTPException(404, f"There is no round {wanted}.")
                return RoundPage(wanted, None, [], {}, RoundPlan.read(plan) if plan.exists() else None, live)
            view = views.round_view(workspace, con, matches[-1], cards=CARDS)
            decisions = rows(con, 'SELECT * FROM promotions WHERE round = ? ORDER BY "at"', [wanted])
        return RoundPage(wanted, view, decisions, cases.references(workspace), None, live)


def _add_cases(app: FastAPI, site: Site, page_size: int) -> None:
    workspace = site.workspace

    @site.page(app, "/cases", "cases.html", "/cases")
    def case_list(
        request: Request,
        capability: str = "",
        track: str = "",
        status: str = "",
        round: str = "",
        checkpoint: str = "",
        within: str = "",
        text: str = "",
        sort: str = "",
        page: str = "1",
        reviewer: str = "",
        answered: str = "",
    ) -> CasesPage:
        """Failure cases by capability, track, status (`open` too), round, or those that a checkpoint fails, or whose
        prompts are `within` a part of the map: a rectangle `x0,x1,y0,y1`, or a lasso `x,y x,y x,y …`.

        `text`: in the prompt, or the start of the id. `sort`: newest round, oldest round, capability, track, status or
        prompt. `/cases.csv` and `/cases.parquet` have all of them as a file.
        """
        chosen = {"capability": capability, "track": track, "status": status, "round": round, "checkpoint": checkpoint}
        chosen |= {"within": within.strip(), "text": text.strip(), "sort": sort}
        wanted = _wanted(chosen)
        number = max(1, integer(page))
        with site.catalog("cases", "case_events", "signals", "rounds", "map_points") as con:
            total, listed = cases.list_cases(con, wanted, limit=page_size, offset=(number - 1) * page_size)
            facets = cases.facets(con)
            said = cases.answered(con, answered) if answered else None
        paging = Paging("/cases", chosen, total, number, page_size)
        name = reviewer_of(request.state.person, reviewer)
        return CasesPage(listed, facets, list(ORDERS), paging, cases.references(workspace), name, said)

    def writer(query: Mapping[str, str]) -> Callable[[Path], None]:
        wanted = _wanted(query)

        def write(path: Path) -> None:
            with site.catalog("cases", "signals", "map_points") as con:
                cases.write_list(con, wanted, path)

        return write

    add_files(app, site, "/cases", "cases", writer)

    @site.page(app, "/cases/{case_id}", "case.html", "/cases")
    def case_page(request: Request, case_id: str, reviewer: str = "") -> CasePage:
        """One case, by its id."""
        with site.catalog("cases", "case_events", "signals", "probes", "reviews", "generated") as con:
            case = cases.load_case(workspace, con, case_id)
        if case is None:
            raise HTTPException(404, f"There is no case {case_id}.")
        return CasePage(case, cases.references(workspace), reviewer_of(request.state.person, reviewer))


def _wanted(query: Mapping[str, str]) -> CaseFilter:
    """The filter that the parameters of an address ask for. Errors: 404 for what is no number, part or order."""
    given = {f.name: query.get(f.name, "").strip() for f in fields(CaseFilter)}
    if given["within"]:
        part_of_map(given["within"])
    if given["sort"] not in ("", *ORDERS):
        raise HTTPException(404, f"Cases are not sorted by {given['sort']}: choose one of {', '.join(ORDERS)}.")
    number = integer(given.pop("round")) if given["round"] else None
    return CaseFilter(**{k: v for k, v in given.items() if k != "round"}, round=number)


def _add_data(app: FastAPI, site: Site) -> None:
    workspace = site.workspace

    @site.page(app, "/funnel", "data.html", "/funnel")
    def funnel_page(request: Request) -> views.Data:
        """The funnel of the latest snapshot, and why rows were dropped or quarantined."""
        with site.catalog("snapshots", "funnel", "decisions", "quarantine") as con:
            return views.data(workspace, con)

    @site.page(app, "/training", "training.html", "/training")
    def training_page(
        request: Request, metric: str = "loss", run: Annotated[list[str] | None, Query()] = None
    ) -> TrainingPage:
        """One metric of training runs over their steps; `run` may come several times."""
        names = training.run_names(workspace)
        chosen = run or names[:SHOWN_RUNS]
        recorded, runs = training.load_runs(workspace, chosen, metric)
        return TrainingPage(names, chosen, metric, recorded, runs, training.chart(runs, metric))

    @app.get("/files/{name:path}")
    def file(name: str, side: str = "") -> Response:
        path = picture(workspace, name)
        if path is None:
            raise HTTPException(404, "There is no such image.")
        if side:
            content, kind = shrink(fetched(path), thumbnail_side(side))
            return Response(content, media_type=kind, headers=KEPT)
        return FileResponse(fetched(path), headers=KEPT)
