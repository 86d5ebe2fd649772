"""The map: a rectangle of it as a page, and its picture; what a lasso chooses opens in the data browser."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import Response

from dashboards import pool_map, scores
from dashboards.pool_map import OF_CASES, OF_POOL, MapView, Points
from dashboards.shapes import Box, Lasso
from dashboards.site import Site, decimal, part_of_map
from flywheel.core.lens import latest_snapshot
from flywheel.remedies.pool_map import files, placed

if TYPE_CHECKING:
    import duckdb

_VIEWS = ("map_points", "decisions", "cases", "scores")  # opened; most are not read
_KEPT = 4  # colours of one state of the map that stay in memory: 9 bytes a point
FRESH = {"Cache-Control": "private, max-age=30"}


@dataclass
class _Layers:
    """Points of the pool by colour, of the newest map and snapshot."""

    state: tuple[Any, ...] = ()
    known: OrderedDict[str, Points] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, site: Site, con: duckdb.DuckDBPyConnection, colour: str) -> Points:
        state = (latest_snapshot(site.workspace), *files(site.workspace))
        with self.lock:  # of two who ask at once, one reads
            if state != self.state:
                self.state = state
                self.known.clear()
            if colour not in self.known:
                self.known[colour] = pool_map.pool_points(con, colour)
                while len(self.known) > _KEPT:
                    self.known.popitem(last=False)
            return self.known[colour]


def add(app: FastAPI, site: Site) -> None:
    """Add the routes."""
    layers = _Layers()

    @contextmanager
    def opened(colour: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, list[str], Points, Points]]:
        with site.catalog(*_VIEWS) as con:
            snapshot = latest_snapshot(site.workspace)
            pool_map.prepare(con, placed(site.workspace, snapshot) if snapshot else None)
            colours = [*OF_POOL, *OF_CASES, *scores.offered(con)]
            if colour not in colours:
                raise HTTPException(404, f"There is no colour {colour}: choose one of {', '.join(colours)}.")
            yield con, colours, layers.get(site, con, colour), pool_map.case_points(con, colour)

    @site.page(app, "/map", "map.html", "/map")
    def map_page(
        request: Request,
        colour: str = "stage",
        x0: str = "",
        x1: str = "",
        y0: str = "",
        y1: str = "",
        within: str = "",
    ) -> MapView:
        """A rectangle of the map, by its ends; `colour`: outcome, stage, capability or track of cases, or a score.

        `within`: corners of a lasso, `x,y x,y x,y …`; counts, legend and samples are of what it chooses.
        """
        lasso = _lasso(within)
        with opened(colour) as (con, colours, pool, cases):
            box = _box(pool, x0, x1, y0, y1)
            part = lasso or box
            ((decided,),) = con.execute("SELECT count(*) FROM decisions").fetchall()
            near, failing = pool_map.nearest(con, part), pool_map.open_cases(con, part) if colour in OF_CASES else []
        inside, mine = int(pool.inside(part).sum()), int(cases.inside(part).sum())
        shown = pool_map.legend([cases, pool], part)
        whole = box == pool.whole
        return MapView(colour, colours, box, whole, lasso, shown, inside, mine, near, failing, len(pool.x), decided)

    @app.get("/map.png")
    def map_picture(colour: str = "stage", x0: str = "", x1: str = "", y0: str = "", y1: str = "") -> Response:
        with opened(colour) as (_, _, pool, cases):
            drawn = pool_map.picture(pool, cases, _box(pool, x0, x1, y0, y1))
        return Response(drawn, media_type="image/png", headers=FRESH)


def _box(pool: Points, *ends: str) -> Box:
    """The asked rectangle; the whole map without one. Errors: 404 for ends that are none."""
    if not any(ends):
        return pool.whole
    return cast(Box, part_of_map(",".join(str(decimal(end)) for end in ends)))


def _lasso(within: str) -> Lasso | None:
    """The asked lasso; None without one. Errors: 404 for what is none."""
    found = part_of_map(within) if within.strip() else None
    if isinstance(found, Box):
        raise HTTPException(404, "A lasso has corners, x,y x,y x,y; the ends of a rectangle are x0, x1, y0 and y1.")
    return found
