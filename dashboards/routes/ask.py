"""Pages that answer questions: what other thresholds would admit, lineage, and any SELECT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool

from dashboards import questions
from dashboards.questions import ROWS, SECONDS
from dashboards.routes.downloads import FORMS, add_files, write_answer
from dashboards.site import Site
from dashboards.what_if import Slider
from flywheel.catalog import queries
from flywheel.catalog.database import Answer
from flywheel.catalog.queries import Query
from flywheel.catalog.views import ALL, meaning
from flywheel.core.errors import UsageError

# Pages that no other site may send a visitor to.
COSTLY = ("/what-if", "/why", "/sql", *(f"/{list_}.{form}" for list_ in ("samples", "cases", "sql") for form in FORMS))


@dataclass(frozen=True)
class WhatIfPage:
    """Thresholds of the policy, the asked ones, and what these would change; fault: why there is no answer."""

    policy: str
    sliders: Sequence[Slider]
    asked: Mapping[str, str]
    answer: Mapping[str, Any] | None
    fault: str | None


@dataclass(frozen=True)
class WhyPage:
    """Where a sample, a case or a checkpoint comes from; known: the names in it that can be asked for in turn.

    fault: why there is no answer.
    """

    asked: str
    lineage: Mapping[str, Any] | None
    known: Sequence[str]
    fault: str | None


@dataclass(frozen=True)
class View:
    """A view of the catalog, with the meaning of each column."""

    name: str
    meaning: str
    columns: Mapping[str, str]


@dataclass(frozen=True)
class SqlPage:
    """The answer to a SELECT, of at most `rows` rows within `seconds`; fault: why there is none."""

    asked: str
    answer: Answer | None
    fault: str | None
    ready: list[Query]
    views: list[View]
    rows: int
    seconds: float


def add(app: FastAPI, site: Site) -> None:
    """Add the routes."""
    root = str(site.workspace.root)

    async def answered(request: Request, question: Any, *arguments: Any) -> tuple[Any, str | None]:
        """(answer, None), or (None, fault); waits for the person's turn."""
        async with site.turns.turn(request.state.person.name):
            try:
                return await run_in_threadpool(question, root, *arguments), None
            except UsageError as error:
                return None, str(error)

    @site.page(app, "/what-if", "what_if.html", "/what-if")
    async def what_if_page(request: Request) -> WhatIfPage:
        """What other thresholds would admit: `STAGE.FILTER.min` or `.max` as parameters, with their values."""
        asked = dict(request.query_params)
        page, fault = await answered(request, questions.thresholds, asked)
        empty: dict[str, Any] = {"policy": "", "sliders": [], "answer": None, "fault": fault}
        return WhatIfPage(asked=asked, **(page or empty))

    @site.page(app, "/why", "why.html", "/why")
    async def why_page(request: Request, id: str = "") -> WhyPage:
        """The lineage of a sample, case or checkpoint, by its id or path."""
        found, fault = await answered(request, questions.lineage, id) if id else (None, None)
        lineage, known = found or (None, [])
        return WhyPage(id, lineage, known, fault)

    @site.page(app, "/sql", "sql.html", "/sql")
    async def sql_page(request: Request, q: str = "", ready: str = "") -> SqlPage:
        """The rows of one SELECT `q`, or of a ready query by its name."""
        known = queries.ready()
        asked = q or (known[ready].sql.strip() if ready in known else "")
        answer, fault = await answered(request, questions.sql, asked) if asked else (None, None)
        views = [View(name, about, {f.name: meaning(f) for f in schema}) for name, (about, schema) in ALL.items()]
        return SqlPage(asked, answer, fault, list(known.values()), views, ROWS, SECONDS)

    def writer(query: Mapping[str, str]) -> Callable[[Path], None]:
        return lambda path: write_answer(questions.sql_file(root, query.get("q", "")), path)

    add_files(app, site, "/sql", "answer", writer)
