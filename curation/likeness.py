"""Which pictures of the pool resemble each other: found once per pool and tolerances, kept, used by every policy.

`tables/alike-<key>.parquet` is derived from the score tables: it can be deleted at any time and is written again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.dedup import Related, preference, related
from curation.policy import Filter
from flywheel.workspace import Workspace, digest, write_parquet

if TYPE_CHECKING:
    import duckdb

_FORMAT = 1  # raised when the same tables would give another file

_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("representative", pa.int64()),
        ("rank", pa.int64()),
        ("near", pa.list_(pa.int64())),
        ("apart", pa.list_(pa.int8())),
    ]
)


@dataclass(frozen=True)
class Likeness:
    """Related rows, and the place of each (int64, as `related.rows`) in the order of preference, soundness apart."""

    related: Related
    rank: np.ndarray


def load(con: duckdb.DuckDBPyConnection, workspace: Workspace, tables: Sequence[Path], line: Filter) -> Likeness:
    """The likeness of all rows of `tables`, within the tolerances of a duplicates check; found where it is not kept.

    con: has the view `every` over those tables, in which `n` numbers the rows.
    """
    key = digest(_FORMAT, [t.name for t in tables], line.hamming, line.colour)[:16]
    path = workspace.path("tables", f"alike-{key}.parquet")
    if not path.exists():
        write_parquet(path, _to_table(_find(con, line)))
    return _from_table(pq.read_table(path))


def _find(con: duckdb.DuckDBPyConnection, line: Filter) -> Likeness:
    """Pairs are compared only with pairs of their instruction and number of references, references included."""
    counts = con.sql("SELECT len(reference_ids) AS k FROM every WHERE reason IS NULL GROUP BY 1 ORDER BY 1").fetchall()
    parts = [_related(con, line, count) for (count,) in counts]
    merged = Related(
        *(np.concatenate([getattr(p, f) for p in parts]) if parts else empty
          for f, empty in zip(("rows", "representatives", "near", "apart"), _nothing()))
    )  # fmt: skip
    by = np.argsort(merged.rows)
    found = Related(merged.rows[by], merged.representatives[by], merged.near, merged.apart)
    return Likeness(found, _rank(con, found.rows))


def _nothing() -> tuple[np.ndarray, ...]:
    none = np.empty(0, np.int64)
    return none, none, none.reshape(0, 2), none


def _related(con: duckdb.DuckDBPyConnection, line: Filter, references: int) -> Related:
    """Likeness among the rows with so many references."""
    group = "task" if not references else "task || ':' || \"text.normalized\""
    rows = con.sql(
        f"""SELECT n, "pixels.phash" AS hash, "pixels.thumbnail" AS thumbnail, {group} AS "group", reference_ids
        FROM every WHERE reason IS NULL AND len(reference_ids) = {references} ORDER BY n"""
    ).to_arrow_table()
    colours = _bytes(rows["thumbnail"])
    if references:
        colours = np.concatenate([colours, _references(con, rows["reference_ids"].to_pylist(), colours.shape[1])], 1)
    groups = rows["group"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    numbers, hashes = rows["n"].to_numpy(), rows["hash"].to_numpy().astype(np.uint64)
    found = related(hashes, colours, groups, hamming=line.hamming, colour=line.colour)
    return Related(numbers[found.rows], numbers[found.representatives], numbers[found.near], found.apart)


def _bytes(column: pa.ChunkedArray) -> np.ndarray:
    """uint8 [N, K] of a column of equally long binaries."""
    rows = [np.frombuffer(b"".join(chunk.to_pylist()), np.uint8) for chunk in column.chunks]
    return np.concatenate([np.empty(0, np.uint8), *rows]).reshape(len(column), -1) if len(column) else np.empty((0, 0))


def _references(con: duckdb.DuckDBPyConnection, ids: Sequence[Sequence[str]], width: int) -> np.ndarray:
    """uint8 [N, references × width]: thumbnails of each row's references, zero where one is unusable."""
    wanted = sorted({i for row in ids for i in row})
    con.register("wanted", pa.table({"image_id": pa.array(wanted, pa.string())}))
    query = """SELECT image_id, any_value("pixels.thumbnail") FROM every SEMI JOIN wanted USING (image_id)
        WHERE reason IS NULL GROUP BY 1"""
    thumbnails: Mapping[str, bytes] = dict(con.execute(query).fetchall())
    con.unregister("wanted")
    nothing = bytes(width)
    joined = b"".join(thumbnails.get(i, nothing) for row in ids for i in row)
    return np.frombuffer(joined, np.uint8).reshape(len(ids), -1)


def _rank(con: duckdb.DuckDBPyConnection, rows: np.ndarray) -> np.ndarray:
    con.register("wanted", pa.table({"n": rows}))
    query = """SELECT width * height AS pixels, "pixels.sharpness" AS sharpness, sample_id, source_uri
        FROM every SEMI JOIN wanted USING (n) ORDER BY n"""
    found = con.sql(query).to_arrow_table()
    con.unregister("wanted")
    ids, uris = (_order_of(found[c].to_pylist()) for c in ("sample_id", "source_uri"))
    yes = np.ones(len(rows), bool)
    best = preference(found["pixels"].to_numpy(), found["sharpness"].to_numpy(), ids, uris, yes, yes)
    rank = np.empty(len(rows), np.int64)
    rank[best] = np.arange(len(rows))
    return rank


def _order_of(texts: Sequence[str]) -> np.ndarray:
    """Number of each text in the sorted order of all: quicker to sort by than the text."""
    places = {text: place for place, text in enumerate(sorted(set(texts)))}
    return np.array([places[t] for t in texts], np.int64)


# File ----------------------------------------------------------------------------------------------------------------
def _to_table(found: Likeness) -> pa.Table:
    near: dict[int, Any] = {}
    for (a, b), apart in zip(found.related.near.tolist(), found.related.apart.tolist()):
        near.setdefault(a, ([], []))[0].append(b)
        near[a][1].append(apart)
    rows = found.related.rows.tolist()
    lists = [near.get(r, ((), ())) for r in rows]
    columns = [rows, found.related.representatives, found.rank, [n for n, _ in lists], [a for _, a in lists]]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, _SCHEMA)], schema=_SCHEMA)


def _from_table(table: pa.Table) -> Likeness:
    import pyarrow.compute as pc

    rows, representatives, rank = (table[c].to_numpy() for c in ("row", "representative", "rank"))
    first = rows[pc.list_parent_indices(table["near"].combine_chunks()).to_numpy()]
    near = np.stack([first, pc.list_flatten(table["near"]).to_numpy()], axis=1).astype(np.int64)
    apart = pc.list_flatten(table["apart"]).to_numpy().astype(np.int64)
    return Likeness(Related(rows, representatives, near, apart), rank)
