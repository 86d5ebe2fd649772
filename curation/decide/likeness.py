"""Which pictures of the pool resemble each other: found once per pool and tolerances, kept, used by every policy.

`tables/alike-<key>.parquet` is derived from the score tables: it can be deleted at any time and is written again. When
batches were added since, only pairs with a new row are looked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.decide.dedup import Related, preference, related
from curation.decide.semantic import similar
from curation.policy.policy import COMPARED, Filter
from curation.scorers.scoring import score_path
from curation.sources import pool
from flywheel.core.files import digest, write_parquet
from flywheel.core.scorer import Scorer
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

_FORMAT = 2  # raised when the same tables would give another file


@dataclass(frozen=True)
class Likeness:
    """Related rows, and the place of each (int64, as `related.rows`) in the order of preference, soundness apart."""

    related: Related
    rank: np.ndarray


@dataclass(frozen=True)
class _Known:
    """What was found when the pool ended before row `since`."""

    since: int
    related: Related


def load(
    con: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    tables: Sequence[Path],
    scorers: Mapping[str, Scorer],
    line: Filter,
) -> Likeness:
    """The likeness of all rows of `tables`, as the check `line` has it; found where it is not kept.

    con: has the view `every` over those tables, in which `n` numbers the rows.
    """
    path = _path(workspace, tables, line)
    if not path.exists():
        vectors = _embeddings(workspace, scorers) if line.check == "similar" else None
        write_parquet(path, _to_table(_find(con, line, vectors, _known(workspace, tables, line))))
    return _from_table(pq.read_table(readable(path)))


def _path(workspace: Workspace, tables: Sequence[Path], line: Filter) -> Path:
    tolerances = (line.cosine,) if line.check == "similar" else (line.hamming, line.colour)
    key = digest(_FORMAT, [t.name for t in tables], line.check, *tolerances)[:16]
    return workspace.path("tables", f"alike-{key}.parquet")


def _known(workspace: Workspace, tables: Sequence[Path], line: Filter) -> _Known | None:
    """What is kept of the most batches."""
    for count in range(len(tables) - 1, 0, -1):
        path = _path(workspace, tables[:count], line)
        if path.exists():
            since = sum(pq.read_metadata(readable(t)).num_rows for t in tables[:count])
            return _Known(since, _from_table(pq.read_table(readable(path))).related)
    return None


def _find(con: duckdb.DuckDBPyConnection, line: Filter, vectors: np.ndarray | None, known: _Known | None) -> Likeness:
    """Pairs are compared only with pairs of their instruction and number of references, references included."""
    counts = con.sql("SELECT len(reference_ids) AS k FROM every WHERE reason IS NULL GROUP BY 1 ORDER BY 1").fetchall()
    # The references of an old pair may have come since: pairs, which are few, are always compared anew.
    parts = [_related(con, line, vectors, count, known if count == 0 else None) for (count,) in counts]
    merged = _merged(parts) if parts else _nothing(line)
    return Likeness(merged, _rank(con, merged.rows))


def _merged(parts: Sequence[Related]) -> Related:
    """One of several that share no pair."""
    rows, first = np.unique(np.concatenate([p.rows for p in parts]), return_index=True)
    representatives = np.concatenate([p.representatives for p in parts])[first]
    near, apart = (np.concatenate([getattr(p, name) for p in parts]) for name in ("near", "apart"))
    by = np.lexsort((near[:, 1], near[:, 0]))
    return Related(rows, representatives, near[by], apart[by])


def _nothing(line: Filter) -> Related:
    none = np.empty(0, np.int64)
    return Related(none, none, none.reshape(0, 2), np.empty(0, float if line.check == "similar" else np.int64))


def _related(
    con: duckdb.DuckDBPyConnection, line: Filter, vectors: np.ndarray | None, references: int, known: _Known | None
) -> Related:
    """Likeness among the rows with so many references."""
    group = "task" if not references else "task || ':' || \"text.normalized\""
    column = COMPARED[line.check or ""]
    compared = '"pixels.phash" AS hash, "pixels.thumbnail" AS thumbnail,' if column == "pixels.phash" else ""
    rows = con.sql(
        f"""SELECT n, {compared} {group} AS "group", reference_ids
        FROM every WHERE reason IS NULL AND len(reference_ids) = {references} ORDER BY n"""
    ).to_arrow_table()
    groups = rows["group"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    numbers, ids = rows["n"].to_numpy(), rows["reference_ids"].to_pylist() if references else []
    since = int(np.searchsorted(numbers, known.since)) if known else 0
    if vectors is not None:
        mine = vectors[numbers]
        if references:
            mine = np.concatenate([mine, vectors[_places(con, ids)].reshape(len(ids), -1)], 1) / (references + 1) ** 0.5
        found = similar(mine, groups, cosine=line.cosine or 0.0, since=since)
    else:
        colours = _bytes(rows["thumbnail"])
        if references:
            colours = np.concatenate([colours, _references(con, ids, colours.shape[1])], 1)
        hashes = rows["hash"].to_numpy().astype(np.uint64)
        found = related(hashes, colours, groups, hamming=line.hamming, colour=line.colour, since=since)
    here = Related(numbers[found.rows], numbers[found.representatives], numbers[found.near], found.apart)
    return _merged([_of(known.related, numbers), here]) if known else here


def _of(found: Related, numbers: np.ndarray) -> Related:
    """The part of it that is about these rows."""
    rows, near = np.isin(found.rows, numbers), np.isin(found.near[:, 0], numbers)
    return Related(found.rows[rows], found.representatives[rows], found.near[near], found.apart[near])


def _embeddings(workspace: Workspace, scorers: Mapping[str, Scorer]) -> np.ndarray:
    """float32 [rows of the pool, D], normalised; zero where there is none."""
    parts = []
    scorer, _, name = COMPARED["similar"].partition(".")
    for shard in pool.shards(workspace):
        path = score_path(workspace, scorers[scorer], shard)
        found = pq.read_table(readable(path), columns=[name])[name].combine_chunks()
        values = np.asarray(found.flatten(), np.float32)
        there = found.is_valid().to_numpy(zero_copy_only=False)
        part = np.zeros((len(found), len(values) // max(1, int(there.sum()))), np.float32)
        part[there] = values.reshape(int(there.sum()), -1)
        parts.append(part)
    width = max((p.shape[1] for p in parts), default=0)
    return np.concatenate([p if p.shape[1] else np.zeros((len(p), width), np.float32) for p in parts])


def _places(con: duckdb.DuckDBPyConnection, ids: Sequence[Sequence[str]]) -> np.ndarray:
    """int64 [N × references]: rows of the pool that hold the references' pictures."""
    con.register("wanted", pa.table({"image_id": pa.array(sorted({i for row in ids for i in row}), pa.string())}))
    query = "SELECT image_id, min(n) FROM every SEMI JOIN wanted USING (image_id) GROUP BY 1"
    places = dict(con.execute(query).fetchall())
    con.unregister("wanted")
    return np.array([places.get(i, 0) for row in ids for i in row], np.int64)


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
    bits = np.issubdtype(found.related.apart.dtype, np.integer)
    kinds = {
        "row": pa.int64(),
        "representative": pa.int64(),
        "rank": pa.int64(),
        "near": pa.list_(pa.int64()),
        "apart": pa.list_(pa.int8() if bits else pa.float64()),
    }
    columns = [rows, found.related.representatives, found.rank, [n for n, _ in lists], [a for _, a in lists]]
    return pa.table({name: pa.array(c, kind) for c, (name, kind) in zip(columns, kinds.items())})


def _from_table(table: pa.Table) -> Likeness:
    rows, representatives, rank = (table[c].to_numpy() for c in ("row", "representative", "rank"))
    first = rows[pc.list_parent_indices(table["near"].combine_chunks()).to_numpy()]
    near = np.stack([first, pc.list_flatten(table["near"]).to_numpy()], axis=1).astype(np.int64)
    apart = pc.list_flatten(table["apart"]).to_numpy()
    return Likeness(
        Related(rows, representatives, near, apart.astype(np.int64 if apart.dtype == np.int8 else float)), rank
    )
