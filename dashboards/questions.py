"""Costly questions of visitors, each answered in a child process with limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dashboards import what_if
from flywheel.catalog.database import Answer, ask
from flywheel.catalog.lineage import traceable, why
from flywheel.core.bounded import bounded
from flywheel.core.errors import UsageError
from flywheel.core.workspace import Workspace

ROWS, SECONDS = 1000, 5.0  # limits of an answer on the SQL page
FILE_ROWS = 100_000  # of an answer as a file
LONGER = 30.0  # seconds for questions of our own
_MEMORY, _ANSWER, _FILE = 2 << 30, 8 << 20, 64 << 20  # bytes
_SHARED = ("dashboards.questions", "duckdb", "pyarrow.parquet")


def sql(root: str, query: str) -> Answer:
    """Rows of a SELECT. Errors: as of `flywheel.catalog.database.ask`, and `TooMuch`."""
    limited = bounded(_sql, seconds=SECONDS, memory=_MEMORY, answer=_ANSWER, preload=_SHARED)
    return limited(root, query, ROWS)


def sql_file(root: str, query: str) -> Answer:
    """The same for a file. Errors: as in `sql`, and `UsageError` for more than `FILE_ROWS` rows."""
    limited = bounded(_sql, seconds=SECONDS, memory=_MEMORY, answer=_FILE, preload=_SHARED)
    answer = limited(root, query, FILE_ROWS)
    if answer.more:
        raise UsageError(f"the answer has more than {FILE_ROWS:,} rows: add a LIMIT, or use `flywheel sql --json`")
    return answer


def thresholds(root: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """The sliders of the what-if page, and what the thresholds `asked` for would change."""
    limited = bounded(_thresholds, seconds=LONGER, memory=_MEMORY, answer=_ANSWER, preload=_SHARED)
    return limited(root, dict(asked))


def lineage(root: str, name: str) -> tuple[dict[str, Any], list[str]]:
    """Where a sample, case or checkpoint comes from, and the names in it that can be asked for in turn.

    Errors: `UsageError` for a name that nothing has.
    """
    limited = bounded(_lineage, seconds=LONGER, memory=_MEMORY, answer=_ANSWER, preload=_SHARED)
    return limited(root, name)


def _sql(root: str, query: str, rows: int) -> Answer:
    return ask(Workspace(root, create=False), query, rows=rows, seconds=SECONDS)


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


def _lineage(root: str, name: str) -> tuple[dict[str, Any], list[str]]:
    workspace = Workspace(root, create=False)
    told = why(workspace, name)
    return told, sorted(traceable(workspace, _texts(told)))


def _texts(value: Any) -> Iterator[str]:
    """Every text in nested mappings and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(part)
