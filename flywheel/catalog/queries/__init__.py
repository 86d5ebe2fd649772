"""Ready queries: one SELECT per file over the views of the catalog; its first line is the question."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Query:
    """A SELECT and the question that it answers."""

    name: str
    question: str
    sql: str


def ready() -> dict[str, Query]:
    """Every ready query by name."""
    files = sorted((f for f in resources.files(__name__).iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return {q.name: q for q in map(_query, files)}


def _query(file: resources.abc.Traversable) -> Query:
    first, _, sql = file.read_text("utf-8").partition("\n")
    return Query(file.name.removesuffix(".sql"), first.removeprefix("-- "), sql)
