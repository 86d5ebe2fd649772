"""The view `scores`: the score tables of all batches, each with the scores that only other tables of its batch have.

A table holds what one policy reads. The latest snapshot's is the first of its batch; those of other policies that
curated, or were asked about, add the scorers that it lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.policy.snapshots import scorers_of
from curation.scorers.table import written_tables
from flywheel.core import lens
from flywheel.core.storage import read_parquet, readable
from flywheel.core.workspace import Workspace

_HIDDEN = ("text.normalized", "pixels.thumbnail")
_ROW = 'shard, "row"'  # what tables of a batch have in common


def select(workspace: Workspace, schema: pa.Schema) -> tuple[str, list[str]]:
    """The SELECT of the view, and the files that it reads. Scores of plug-in scorers follow the built-in ones."""
    latest = lens.latest_snapshot(workspace)
    first, more, types = list[str](), dict[str, list[str]](), dict[str, pa.DataType]()
    own = dict[str, pa.DataType]()  # columns of the first tables
    for tables in written_tables(workspace, scorers_of(workspace, latest) if latest else []):
        known = set[str]()
        for path in tables:
            columns = {f.name: f.type for f in pq.read_schema(readable(path))}
            scorers = {_scorer(name) for name in columns if "." in name} - known
            if path is tables[0]:
                first.append(str(path))
                own |= columns
            else:
                for scorer in sorted(scorers):
                    more.setdefault(scorer, []).append(str(path))
            types |= {n: t for n, t in columns.items() if n not in types}
            known |= scorers
    if not first:
        return lens.select(schema, []), []
    return _joined(schema, first, more, types, own), [*first, *sorted({f for files in more.values() for f in files})]


def _scorer(column: str) -> str:
    return column.partition(".")[0]


def _joined(
    schema: pa.Schema,
    first: Sequence[str],
    more: dict[str, list[str]],
    types: dict[str, pa.DataType],
    own: dict[str, pa.DataType],
) -> str:
    """SELECT of the first tables; scorers that some lack are joined from `more`, where each row is at most once."""
    names = [*schema.names, *(n for n in types if "." in n and n not in schema.names and n not in _HIDDEN)]
    joins, columns = "", []
    for scorer, files in more.items():
        there = {n for file in files for n in pq.read_schema(readable(Path(file))).names}
        mine = ", ".join(f'"{n}" AS "{scorer}: {n}"' for n in names if _scorer(n) == scorer and n in there)
        if mine:
            source = read_parquet(files, union_by_name="true")
            joins += f" LEFT JOIN (SELECT {_ROW}, {mine} FROM {source}) USING ({_ROW})"
    for name in names:
        added, mine = f'"{_scorer(name)}: {name}"', f'first."{name}"'
        sources = [mine] * (name in own) + [added] * (f"AS {added}" in joins)
        value = f"coalesce({', '.join(sources)})" if sources else f"NULL::{lens.duck(schema.field(name).type)}"
        columns.append(f'{value} AS "{name}"')
    return f"SELECT {', '.join(columns)} FROM {read_parquet(first, union_by_name='true')} AS first{joins}"
