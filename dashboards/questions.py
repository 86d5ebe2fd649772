"""Costly questions of visitors, each answered in a child process with limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dashboards import what_if
from flywheel.catalog.database import Answer, ask
from flywheel.catalog.lineage import why
from flywheel.core.bounded import bounded
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

ROWS, SECONDS = 1000, 5.0  # limits of an answer on the SQL page
LONGER = 30.0  # seconds for questions of our own
_MEMORY, _ANSWER = 2 << 30, 8 << 20  # bytes
_SHARED = ("dashboards.questions", "duckdb", "pyarrow.parquet")


def sql(root: str, query: str) -> Answer:
    """Rows of a SELECT. Errors: as of `flywheel.catalog.database.ask`, and `TooMuch`."""
    limited = bounded(_sql, seconds=SECONDS, memory=_MEMORY, answer=_ANSWER, preload=_SHARED)
    return limited(root, query)


def thresholds(root: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """The sliders of the what-if page, and what the thresholds `asked` for would change."""
    limited = bounded(_thresholds, seconds=LONGER, memory=_MEMORY, answer=_ANSWER, preload=_SHARED)
    return limited(root, dict(asked))


def lineage(root: str, name: str) -> dict[str, Any]:
    """Where a sample, case or checkpoint comes from. Errors: `UsageError` for a name that nothing has."""
    limited = bounded(_lineage, seconds=LONGER, memory=_MEMORY, answer=_ANSWER, preload=_SHARED)
    return limited(root, name)


def _sql(root: str, query: str) -> Answer:
    return ask(Workspace(root, create=False), query, rows=ROWS, seconds=SECONDS)


def _thresholds(root: str, asked: dict[str, str]) -> dict[str, Any]:
    workspace = Workspace(root, create=False)
    page: dict[str, Any] = {"policy": "", "sliders": [], "answer": None, "fault": None}
    try:
        if base := what_if.current(workspace):
            page |= {"policy": base.policy.name, "sliders": what_if.sliders(workspace, base)}
            page["answer"] = what_if.answer(workspace, base, asked)
    except UsageError as error:
        page["fault"] = str(error)
    return page


def _lineage(root: str, name: str) -> dict[str, Any]:
    return why(Workspace(root, create=False), name)
