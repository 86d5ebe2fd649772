"""Pages of accounts: what rounds cost, what sources yield, what the shards cover."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastapi import FastAPI, Request

from dashboards.costs import Costs, Prices, load_costs
from dashboards.coverage import Coverage, load_coverage
from dashboards.site import Site
from dashboards.sources import Sources, load_sources
from flywheel.core.errors import UsageError


@dataclass(frozen=True)
class CostPage:
    """Costs at the stated prices of a core-hour and of a GPU-hour; nothing has a price until one is stated."""

    costs: Costs
    prices: Prices


def add(app: FastAPI, site: Site) -> None:
    """Add the routes."""
    workspace = site.workspace

    @site.page(app, "/cost", "cost.html", "/cost")
    def cost_page(request: Request, core: str = "", gpu: str = "") -> CostPage:
        """Core-hours, GPU-hours and money by step, by round and by fixed case; `core`, `gpu`: prices of an hour."""
        prices = Prices(_price("core", core), _price("gpu", gpu))
        with site.catalog("costs", "round_costs") as con:
            return CostPage(load_costs(con, prices), prices)

    @site.page(app, "/sources", "sources.html", "/sources")
    def sources_page(request: Request) -> Sources:
        """What each source, and each licence, brought into the latest snapshot: input, admitted by stage, dropped."""
        return load_sources(workspace)

    @site.page(app, "/coverage", "coverage.html", "/coverage")
    def coverage_page(request: Request, stage: str = "") -> Coverage:
        """Categories and caption kinds in the shards of a stage, beside the shares that policy and recipe ask for."""
        return load_coverage(workspace, stage)


def _price(name: str, text: str) -> float:
    """A price; 0 without one. Errors: `UsageError` for what is no amount."""
    try:
        price = float(text or 0)
    except ValueError:
        price = -1.0
    if not (math.isfinite(price) and 0 <= price <= 1e9):
        raise UsageError(f"{name}={text!r} is not a price: give the money for an hour, such as 0.05")
    return price
