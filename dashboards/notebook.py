"""A workspace in a notebook: `w = fw.open("w")`, then `w.cases(capability="typography")` shows rows with pictures.

Tables are lazy: each is a SELECT over the analysts' views, which runs when its rows are asked for.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboards.images import InlineImages, thumbnail
from flywheel.catalog import views
from flywheel.catalog.database import connect, names_in, pictures, told
from flywheel.core.errors import UsageError
from flywheel.core.lens import latest_snapshot
from flywheel.core.storage import quoted
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from curation.run import Curated

_SHOWN = 20  # rows of a table that a notebook shows
_SIDE = 96  # pixels of their thumbnails
_BYTES = 2_000_000  # of all thumbnails of a table
_TEXT = 120  # characters of a cell that are shown


@dataclass(frozen=True)
class Table:
    """A lazy table over a workspace; nothing is read until its rows are asked for."""

    workspace: Workspace
    select: str
    name: str = ""  # of the view, where the table is a part of one

    def sql(self, query: str) -> Table:
        """The rows of a SELECT in which this table is called `it`; it may name the other views too."""
        return Table(self.workspace, f"WITH it AS ({self.select}) {query}")

    def arrow(self) -> pa.Table:
        """All rows, as Arrow. Errors: `UsageError` with DuckDB's message."""
        import duckdb

        try:
            with closing(connect(self.workspace, names_in(self.select))) as con:
                return con.sql(self.select).to_arrow_table()
        except duckdb.Error as error:
            raise UsageError(told(error)) from error

    def df(self) -> pd.DataFrame:
        """All rows, as a pandas data frame."""
        return self.arrow().to_pandas()

    def rows(self) -> list[dict[str, Any]]:
        """All rows, as dictionaries."""
        return self.arrow().to_pylist()

    def __len__(self) -> int:
        return int(self.sql("SELECT count(*) AS n FROM it").rows()[0]["n"])

    def show(self, limit: int = _SHOWN) -> Shown:
        """The first rows with thumbnails, for a notebook to display."""
        head = self.sql(f"SELECT * FROM it LIMIT {int(limit)}").arrow()
        return Shown(head.column_names, head.to_pylist(), len(self), self._thumbnails(head))

    def _repr_html_(self) -> str:
        return self.show()._repr_html_()

    def _thumbnails(self, head: pa.Table) -> list[str | None]:
        """A data address for each row: of its `image`, a workspace path, or of its sample in the pool."""
        if "image" in head.column_names:
            inline = InlineImages(self.workspace, _BYTES)
            return [inline(path, _SIDE) for path in head["image"].to_pylist()]
        if self.name in ("samples", "decisions"):
            ids = head["sample_id"].to_pylist()
            found = pictures(self.workspace, ids)
            return [_address(found[i]) if i in found else None for i in ids]
        return [None] * head.num_rows


@dataclass(frozen=True)
class Shown:
    """Some rows of a table, as a notebook or a terminal displays them."""

    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    total: int
    thumbnails: Sequence[str | None] = field(repr=False, default=())

    def _repr_html_(self) -> str:
        pictured = any(self.thumbnails)
        head = "".join(f"<th>{html.escape(c)}</th>" for c in (*[""] * pictured, *self.columns))
        lines = [self._line(row, image, pictured) for row, image in zip(self.rows, self.thumbnails)]
        more = f"<p>{len(self.rows)} of {self.total} rows</p>" if self.total > len(self.rows) else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>{more}"

    def _line(self, row: Mapping[str, Any], image: str | None, pictured: bool) -> str:
        shown = f'<td><img src="{image}" alt="" width="{_SIDE}"></td>' if image else "<td></td>" * pictured
        return f"<tr>{shown}{''.join(f'<td>{html.escape(_text(row[c]))}</td>' for c in self.columns)}</tr>"


@dataclass(frozen=True)
class Opened:
    """A workspace as `fw.open` returns it: its tables, and what can be asked of it or run on it."""

    workspace: Workspace

    def table(self, name: str, **where: Any) -> Table:
        """A view by name (`flywheel tables` lists them), with the rows whose columns equal these values.

        A list as a value stands for any of its members, None for null. tag: of samples that have it, None: that have
        none. Errors: `UsageError` for an unknown name.
        """
        if name not in views.ALL:
            raise UsageError(f"there is no table {name!r}: choose one of {', '.join(views.ALL)}")
        known = views.ALL[name][1].names
        tagged = "tag" in where and "sample_id" in known and "tag" not in known
        tag = where.pop("tag") if tagged else None
        if unknown := where.keys() - set(known):
            raise UsageError(f"{name} has no column {min(unknown)!r}: choose one of {', '.join(known)}")
        conditions = ["true", *(_condition(column, value) for column, value in where.items())]
        if tagged and tag is None:
            conditions.append("sample_id NOT IN (SELECT sample_id FROM tags)")
        elif tagged:
            conditions.append(f"sample_id IN (SELECT sample_id FROM tags WHERE {_condition('tag', tag)})")
        return Table(self.workspace, f"SELECT * FROM {name} WHERE {' AND '.join(conditions)}", name)

    def samples(self, **where: Any) -> Table:
        """The readable rows of the pool."""
        return self.table("samples", **where)

    def decisions(self, **where: Any) -> Table:
        """What curation decided for each of them in the latest snapshot."""
        return self.table("decisions", **where)

    def funnel(self, **where: Any) -> Table:
        """Rows that enter and leave each filter, in order."""
        return self.table("funnel", **where)

    def cases(self, **where: Any) -> Table:
        """Failure cases, each with the picture that failed first."""
        return self.table("cases", **where)

    def rounds(self, **where: Any) -> Table:
        """Rounds and their verdicts."""
        return self.table("rounds", **where)

    def tag(self, name: str, samples: Table | Iterable[str], *, by: str, remove: bool = False) -> int:
        """Add a tag to samples, or remove it: a table with `sample_id`, or ids; returns how many changed."""
        from flywheel.catalog import tags

        ids = samples.arrow()["sample_id"].to_pylist() if isinstance(samples, Table) else samples
        return tags.tag(self.workspace, name, ids, by=by, kind=tags.REMOVED if remove else tags.ADDED)

    def sql(self, query: str) -> Table:
        """The rows of a SELECT over all views."""
        return Table(self.workspace, query)

    def explain(self, sample: str) -> Mapping[str, Any]:
        """Why curation decided as it did about a sample, by id, start of an id, or source address."""
        from curation.run import explain

        return explain(self.workspace, latest_snapshot(self.workspace), sample)

    def what_if(self, *settings: str) -> Mapping[str, Any]:
        """What other thresholds would admit and drop, as in `what_if("S4.aesthetic.min=5.0")`. Nothing is written."""
        from curation.policy import what_if

        base = what_if.basis(self.workspace, latest_snapshot(self.workspace))
        changed = what_if.with_settings(base.policy, what_if.parse_settings(settings))
        return what_if.what_if(self.workspace, base, changed)

    def plan(self) -> Mapping[str, Any]:
        """The next round's plan, its steps and their cost. Nothing is written."""
        from flywheel.rounds.outlook import plan_next

        return plan_next(self.workspace, pin=False)

    def curate(self, source: str | Path, captions: str | Path | None = None, **settings: Any) -> Curated:
        """Ingest, score, filter and shard new data; settings: policy, preset, workers."""
        from flywheel.rounds.job import Job
        from flywheel.rounds.run import curate

        paths = str(Path(source).resolve()), str(Path(captions).resolve()) if captions else None
        return curate(Job(str(self.workspace.root), *paths, **settings))


def open_workspace(folder: str | Path) -> Opened:
    """Open a workspace, in a notebook or a program. Errors: `UsageError` if there is none.

    >>> import flywheel as fw
    >>> w = fw.open(fw.Workspace("empty").root)
    >>> len(w.cases(capability="typography")), w.sql("select 1 as one").rows()
    (0, [{'one': 1}])
    """
    return Opened(Workspace(folder, create=False))


def _condition(column: str, value: Any) -> str:
    if value is None:
        return f'"{column}" IS NULL'
    members = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
    return f'"{column}" IN ({", ".join(_literal(v) for v in members) or "NULL"})'


def _literal(value: Any) -> str:
    return str(value) if isinstance(value, (bool, int, float)) else quoted(str(value))


def _text(value: Any) -> str:
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


def _address(picture: bytes) -> str:
    data, kind = thumbnail(picture, _SIDE)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
