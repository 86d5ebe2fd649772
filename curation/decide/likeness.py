"""Which pictures of the pool resemble each other: computed once per pool and tolerances, shared by all policies.

`tables/alike-<key>.parquet` is derived from the score tables: it can be deleted at any time and is written again. After
new batches only pairs with a new row are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.decide.compare import Rows, agreements, files_of, other_texts
from curation.decide.copies import candidates, leaders
from curation.decide.dedup import Related, nearest, preference, related
from curation.decide.judging import Judging
from curation.decide.semantic import similar
from curation.decide.thumbnails import Thumbnails
from curation.policy.policy import COMPARED, Filter
from curation.scorers.stored import read_scores, score_path
from curation.sources import pool
from flywheel.core.files import digest, write_parquet
from flywheel.core.storage import read_table, readable

_PARTNERS = 16  # near rows at most with which each is compared in detail: the nearest
_BATCH = 1 << 16  # rows that are read at a time
_FORMAT = 9  # raised when the same tables would give another file


@dataclass(frozen=True)
class Likeness:
    """Related rows, and the place of each (int64, as `related.rows`) in the order of preference, ignoring soundness."""

    related: Related
    rank: np.ndarray


@dataclass(frozen=True)
class _Known:
    """What is known of a smaller pool, one that ended before row `since`."""

    since: int
    related: Related


def load(judging: Judging, filter_: Filter) -> Likeness:
    """Likeness of all rows of the pool with the tolerances of `filter_`: read from its file, else computed."""
    path = _path(judging, filter_, len(judging.tables))
    if not path.exists():
        write_parquet(path, _to_table(_compute(judging, filter_, _known(judging, filter_))))
    return _from_table(read_table(path))


def _path(judging: Judging, filter_: Filter, count: int) -> Path:
    """File of the likeness of the first `count` score tables."""
    tolerances = [filter_.hamming, filter_.colour, filter_.agreement, filter_.cosine]
    key = digest(_FORMAT, [t.name for t in judging.tables[:count]], filter_.check, tolerances)[:16]
    return judging.workspace.path("tables", f"alike-{key}.parquet")


def _known(judging: Judging, filter_: Filter) -> _Known | None:
    """The file that covers the most batches."""
    for count in range(len(judging.tables) - 1, 0, -1):
        path = _path(judging, filter_, count)
        if path.exists():
            since = sum(pq.read_metadata(readable(t)).num_rows for t in judging.tables[:count])
            return _Known(since, _from_table(read_table(path)).related)
    return None


def _compute(judging: Judging, filter_: Filter, known: _Known | None) -> Likeness:
    """Edit pairs are compared, references included, only where instruction and number of references are equal."""
    counts = judging.connection.sql(
        "SELECT len(reference_ids) AS k FROM every WHERE reason IS NULL GROUP BY 1 ORDER BY 1"
    ).fetchall()
    # The references of an old pair may have been added since: pairs, which are few, are always compared again.
    search = _SEARCHES[filter_.check or ""](judging, filter_)
    parts = [_related(judging, search, count, known if count == 0 else None) for (count,) in counts]
    merged = _merged(parts) if parts else _nothing(filter_)
    return Likeness(merged, _rank(judging, merged.rows))


def _merged(parts: Sequence[Related]) -> Related:
    """Several, none of which share a pair, as one."""
    rows, first = np.unique(np.concatenate([p.rows for p in parts]), return_index=True)
    representatives = np.concatenate([p.representatives for p in parts])[first]
    near, apart = (np.concatenate([getattr(p, name) for p in parts]) for name in ("near", "apart"))
    by = np.lexsort((near[:, 1], near[:, 0]))
    return Related(rows, representatives, near[by], apart[by])


def _nothing(filter_: Filter) -> Related:
    none = np.empty(0, np.int64)
    return Related(none, none, none.reshape(0, 2), np.empty(0, np.int64 if filter_.check == "duplicates" else float))


@dataclass(frozen=True)
class _Rows:
    """Rows with as many references each, of which those of one group are compared; numbers, groups: int64 [N].

    since, twins: what was compared before (`curation.decide.dedup.related`).
    """

    numbers: np.ndarray
    groups: np.ndarray
    reference_ids: Sequence[Sequence[str]]
    references: int
    since: int
    twins: np.ndarray | None


_Search = Callable[[_Rows], Related]  # its rows are places in `numbers`


def _related(judging: Judging, search: _Search, references: int, known: _Known | None) -> Related:
    """Likeness among the rows with this number of references."""
    group = "task" if not references else "task || ':' || \"text.normalized\""
    more = ", reference_ids" if references else ""
    table = judging.query(
        f"""SELECT n, {group} AS "group"{more}
        FROM every WHERE reason IS NULL AND len(reference_ids) = {references} ORDER BY n"""
    )
    groups = table["group"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    numbers, ids = table["n"].to_numpy(), table["reference_ids"].to_pylist() if references else []
    since = int(np.searchsorted(numbers, known.since)) if known else 0
    before = _of(known.related, numbers) if known else None
    pairs = search(_Rows(numbers, groups, ids, references, since, _twins(before, numbers) if before else None))
    here = Related(numbers[pairs.rows], numbers[pairs.representatives], numbers[pairs.near], pairs.apart)
    return _merged([before, here]) if before else here


def _twins(known: Related, numbers: np.ndarray) -> np.ndarray:
    """Rows that another equals, and that one: int64 [T, 2], as places in `numbers`."""
    equal = known.rows != known.representatives
    pairs = np.stack([known.rows[equal], known.representatives[equal]], axis=1)
    return np.searchsorted(numbers, pairs)


def _by_hash(judging: Judging, filter_: Filter) -> _Search:
    """Equal and near perceptual hashes and thumbnails, whose sketches agree where the filter asks for it."""
    compared = Rows(files_of(judging)) if filter_.agreement is not None else None

    def search(rows: _Rows) -> Related:
        hashes, colours = _signatures(judging, rows)
        found = related(
            hashes,
            colours,
            rows.groups,
            hamming=filter_.hamming,
            colour=filter_.colour,
            since=rows.since,
            finer=compared.digests(rows.numbers) if compared else None,
            twins=rows.twins,
        )
        if compared is None:
            return found
        some = found.kept(nearest(found.near, found.apart, _PARTNERS))
        _, differ = agreements(compared, rows.numbers[some.near], by_landmarks=False)
        return some.kept(~differ)

    return search


def _by_landmarks(judging: Judging, filter_: Filter) -> _Search:
    """Pictures whose landmarks meet and whose sketches agree, once they are laid on each other."""
    compared = Rows(files_of(judging))

    def search(rows: _Rows) -> Related:
        if rows.references:  # of a mirrored pair, the references would have to be mirrored too
            return _nothing(filter_)
        hashes, owners = compared.landmarks(rows.numbers)

        def sketches(places: np.ndarray) -> np.ndarray:
            return compared.digests(rows.numbers[places])

        leader = leaders(hashes, owners, rows.groups, sketches, since=rows.since, twins=rows.twins)
        alone = leader[owners] == owners
        near = candidates(hashes[alone], owners[alone], rows.groups, since=rows.since)
        shares, differ = agreements(compared, rows.numbers[near], by_landmarks=True)
        kept = ~differ & (shares >= (filter_.agreement or 0.0))
        equal = np.flatnonzero(leader != np.arange(len(leader)))
        found = np.unique(np.concatenate([equal, leader[equal], near[kept].ravel()]))
        return Related(found, leader[found], near[kept], shares[kept])

    return search


def _by_embedding(judging: Judging, filter_: Filter) -> _Search:
    """Pictures with similar embeddings that do not show different texts."""
    vectors, compared = _embeddings(judging), Rows(files_of(judging))

    def search(rows: _Rows) -> Related:
        mine = vectors[rows.numbers]
        if rows.references:
            others = vectors[_places(judging, rows.reference_ids)].reshape(len(mine), -1)
            mine = np.concatenate([mine, others], 1) / (rows.references + 1) ** 0.5
        found = similar(mine, rows.groups, cosine=filter_.cosine or 0.0, since=rows.since)
        return found.kept(~other_texts(compared, rows.numbers[found.near]))

    return search


_SEARCHES: Mapping[str, Callable[[Judging, Filter], _Search]] = {
    "duplicates": _by_hash,
    "copies": _by_landmarks,
    "similar": _by_embedding,
}


def _of(known: Related, numbers: np.ndarray) -> Related:
    """The part of `known` that concerns these rows."""
    rows, near = np.isin(known.rows, numbers), np.isin(known.near[:, 0], numbers)
    return Related(known.rows[rows], known.representatives[rows], known.near[near], known.apart[near])


def _embeddings(judging: Judging) -> np.ndarray:
    """float32 [rows of the pool, D], normalised; zero where a row has no embedding."""
    parts = []
    scorer, _, name = COMPARED["similar"].partition(".")
    for shard in pool.shards(judging.workspace):
        path = score_path(judging.workspace, judging.scorers[scorer], shard)
        embeddings = read_scores(path, shard, [name])[name].combine_chunks()
        values = np.asarray(embeddings.flatten(), np.float32)
        there = embeddings.is_valid().to_numpy(zero_copy_only=False)
        part = np.zeros((len(embeddings), len(values) // max(1, int(there.sum()))), np.float32)
        part[there] = values.reshape(int(there.sum()), -1)
        parts.append(part)
    width = max((p.shape[1] for p in parts), default=0)
    return np.concatenate([p if p.shape[1] else np.zeros((len(p), width), np.float32) for p in parts])


def _places(judging: Judging, ids: Sequence[Sequence[str]]) -> np.ndarray:
    """int64 [N × references]: places in the pool of the references' pictures."""
    con = judging.connection
    con.register("wanted", pa.table({"image_id": pa.array(sorted({i for row in ids for i in row}), pa.string())}))
    query = "SELECT image_id, min(n) FROM every SEMI JOIN wanted USING (image_id) GROUP BY 1"
    places = dict(con.execute(query).fetchall())
    con.unregister("wanted")
    return np.array([places.get(i, 0) for row in ids for i in row], np.int64)


def _signatures(judging: Judging, rows: _Rows) -> tuple[np.ndarray, Thumbnails]:
    """(perceptual hashes uint64 [N] of the rows, thumbnails of them and of their references)."""
    query = f"""SELECT n, "pixels.phash", "pixels.thumbnail"
        FROM every WHERE reason IS NULL AND len(reference_ids) = {rows.references}"""
    hashes, colours = np.empty(len(rows.numbers), np.uint64), Thumbnails(0, 0)
    for batch in judging.connection.sql(query).to_arrow_reader(_BATCH):
        numbers, own, thumbnails = batch.columns
        places, part = np.searchsorted(rows.numbers, numbers.to_numpy()), _bytes(thumbnails)
        if not len(colours):
            colours = Thumbnails(len(hashes), part.shape[1])
        hashes[places] = own.to_numpy()
        edges = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
        for start, end in zip(edges, edges[1:]):
            colours.write(int(places[start]), part[start:end])
    return hashes, _with_references(judging, rows, colours) if rows.references else colours


def _with_references(judging: Judging, rows: _Rows, own: Thumbnails) -> Thumbnails:
    """The thumbnails, each with those of the row's references behind it."""
    joined = Thumbnails(len(own), own.width * (1 + rows.references))
    for start in range(0, len(own), _BATCH):
        here = np.arange(start, min(start + _BATCH, len(own)))
        references = _references(judging, rows.reference_ids[start : start + _BATCH], own.width)
        joined.write(start, np.concatenate([own.read(here), references], 1))
    return joined


def _bytes(column: pa.Array) -> np.ndarray:
    """uint8 [N, K] of binaries of one length, none of them null."""
    column = column.cast(pa.large_binary())
    _, offsets, data = column.buffers()
    first, last = np.frombuffer(offsets, np.int64)[[column.offset, column.offset + len(column)]]
    return np.frombuffer(data, np.uint8)[first:last].reshape(len(column), -1)


def _references(judging: Judging, ids: Sequence[Sequence[str]], width: int) -> np.ndarray:
    """uint8 [N, references × width]: thumbnails of each row's references, zero where one is unusable."""
    con, wanted = judging.connection, sorted({i for row in ids for i in row})
    con.register("wanted", pa.table({"image_id": pa.array(wanted, pa.string())}))
    query = """SELECT image_id, any_value("pixels.thumbnail") FROM every SEMI JOIN wanted USING (image_id)
        WHERE reason IS NULL GROUP BY 1"""
    thumbnails: Mapping[str, bytes] = dict(con.execute(query).fetchall())
    con.unregister("wanted")
    nothing = bytes(width)
    joined = b"".join(thumbnails.get(i, nothing) for row in ids for i in row)
    return np.frombuffer(joined, np.uint8).reshape(len(ids), -1)


def _rank(judging: Judging, rows: np.ndarray) -> np.ndarray:
    """Place of each row in the order of preference."""
    judging.connection.register("wanted", pa.table({"n": rows}))
    query = """SELECT width * height AS pixels, "pixels.sharpness" AS sharpness, sample_id, source_uri
        FROM every SEMI JOIN wanted USING (n) ORDER BY n"""
    pictures = judging.query(query)
    judging.connection.unregister("wanted")
    ids, uris = (_order_of(pictures[c].to_pylist()) for c in ("sample_id", "source_uri"))
    yes = np.ones(len(rows), bool)
    best = preference(pictures["pixels"].to_numpy(), pictures["sharpness"].to_numpy(), ids, uris, yes, yes)
    rank = np.empty(len(rows), np.int64)
    rank[best] = np.arange(len(rows))
    return rank


def _order_of(texts: Sequence[str]) -> np.ndarray:
    """Place of each text in the sorted order of all: faster to sort by than the text."""
    places = {text: place for place, text in enumerate(sorted(set(texts)))}
    return np.array([places[t] for t in texts], np.int64)


# File ----------------------------------------------------------------------------------------------------------------
def _to_table(likeness: Likeness) -> pa.Table:
    near: dict[int, tuple[list[int], list[float]]] = {}
    for (a, b), apart in zip(likeness.related.near.tolist(), likeness.related.apart.tolist()):
        near.setdefault(a, ([], []))[0].append(b)
        near[a][1].append(apart)
    rows = likeness.related.rows.tolist()
    lists = [near.get(r, ([], [])) for r in rows]
    bits = np.issubdtype(likeness.related.apart.dtype, np.integer)
    kinds = {
        "row": pa.int64(),
        "representative": pa.int64(),
        "rank": pa.int64(),
        "near": pa.list_(pa.int64()),
        "apart": pa.list_(pa.int8() if bits else pa.float64()),
    }
    columns = [rows, likeness.related.representatives, likeness.rank, [n for n, _ in lists], [a for _, a in lists]]
    return pa.table({name: pa.array(c, kind) for c, (name, kind) in zip(columns, kinds.items())})


def _from_table(table: pa.Table) -> Likeness:
    rows, representatives, rank = (table[c].to_numpy() for c in ("row", "representative", "rank"))
    first = rows[pc.list_parent_indices(table["near"].combine_chunks()).to_numpy()]
    near = np.stack([first, pc.list_flatten(table["near"]).to_numpy()], axis=1).astype(np.int64)
    apart = pc.list_flatten(table["apart"]).to_numpy()
    return Likeness(
        Related(rows, representatives, near, apart.astype(np.int64 if apart.dtype == np.int8 else float)), rank
    )
