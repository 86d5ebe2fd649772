"""The data browser: samples of the pool with what curation decided, and everything about one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboards.images import thumbnail
from dashboards.rows import Row, rows
from dashboards.shapes import shape
from flywheel.core.errors import UsageError
from flywheel.core.image import BadImage
from flywheel.core.lens import latest_snapshot
from flywheel.core.mirror import fetched
from flywheel.core.schema import RIGHTS
from flywheel.core.storage import quoted, read_table
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

    from curation.sources.pool import Shard

SIDES = (96, 192, 384, 1024)  # pixels of thumbnails, long side
_COLUMNS = "sample_id, source_uri, outcome, stage_reached, filter, score, threshold, survivor, shard, row"
RIGHTS_NAMES = tuple(field.name for field in RIGHTS)
_SHARDS = 4  # whose pictures stay in memory: those of one page lie close together


@dataclass(frozen=True)
class SampleFilter:
    """Which samples to list; empty: all. text: in the caption or the source address, in any letter case.

    score: name of a score that listed samples have; least, most: ends of its range, None: open. tag: that they have.
    within: a part of the map, as `shapes.shape` reads it: a rectangle `x0,x1,y0,y1`, or a lasso `x,y x,y x,y`.
    """

    outcome: str = ""
    stage: str = ""
    filter: str = ""
    text: str = ""
    tag: str = ""
    within: str = ""
    score: str = ""
    least: float | None = None
    most: float | None = None

    @property
    def order(self) -> str:
        """By the score, or dropped samples of one filter from the one nearest to its threshold, or else by id."""
        if self.score:
            return "listed_score, sample_id"
        return "abs(score - threshold) NULLS LAST, sample_id" if self.filter else "sample_id"

    def where(self) -> tuple[str, list[Any]]:
        """The condition on `decisions`, and its parameters."""
        columns = {"outcome": self.outcome, "stage_reached": self.stage, "filter": self.filter}
        parts = [f"{name} = ?" for name, value in columns.items() if value]
        values: list[Any] = [value for value in columns.values() if value]
        if self.tag:
            parts.append("sample_id IN (SELECT sample_id FROM tags WHERE tag = ?)")
            values.append(self.tag)
        if self.within:
            inside = shape(self.within).condition()
            parts.append(f"sample_id IN (SELECT sample_id FROM map_points WHERE sample_id IS NOT NULL AND {inside})")
        if self.text:
            parts.append(
                "(contains(lower(source_uri), lower(?)) OR sample_id IN "
                "(SELECT sample_id FROM samples WHERE contains(lower(caption), lower(?))))"
            )
            values += [self.text, self.text]
        return " AND ".join(["true", *parts]), values


def list_samples(
    con: duckdb.DuckDBPyConnection, wanted: SampleFilter, *, limit: int, offset: int
) -> tuple[int, list[Row]]:
    """(number of matching samples, one page of them with captions, in the filter's order)."""
    table, given = choose(con, wanted)
    columns = "sample_id, source_uri, listed_score" if wanted.score else f"{_COLUMNS}, NULL AS listed_score"
    ((total,),) = con.execute(f"SELECT count(*) FROM {table}", given).fetchall()
    page = f"SELECT {columns} FROM {table} ORDER BY {wanted.order} LIMIT ? OFFSET ?"
    if wanted.score:
        others = f"SELECT {_COLUMNS}, listed_score FROM decisions JOIN ({page}) USING (sample_id, source_uri)"
        page = f"{others} ORDER BY {wanted.order}"
    listed = rows(con, page, [*given, limit, offset])
    ids = [r["sample_id"] for r in listed]
    captions, tags = _captions(con, ids), tags_of(con, ids)
    texts = [captions.get((r["sample_id"], r["source_uri"])) or "" for r in listed]
    return total, [r | {"caption": t, "tags": tags.get(r["sample_id"], [])} for r, t in zip(listed, texts)]


def choose(con: duckdb.DuckDBPyConnection, wanted: SampleFilter) -> tuple[str, list[Any]]:
    """A table expression of the matching rows, with sample_id and source_uri, and its parameters."""
    if wanted.score:
        _choose_by_score(con, wanted)
        return "matching", []
    where, values = wanted.where()
    return f"(SELECT * FROM decisions WHERE {where})", values


def write_list(con: duckdb.DuckDBPyConnection, wanted: SampleFilter, path: Path) -> None:
    """Write the matching samples, with captions and tags, to a local file, CSV or Parquet by its ending."""
    table, values = choose(con, wanted)
    keys = f"CREATE OR REPLACE TEMP TABLE chosen AS SELECT DISTINCT sample_id, source_uri FROM {table}"
    con.execute(keys, values)
    con.execute(
        f"""COPY (
            SELECT sample_id, source_uri, s.source, s.width, s.height, s.caption, d.outcome, d.stage_reached, d.filter,
                   d.score, d.threshold, d.survivor, t.tags
            FROM chosen JOIN decisions d USING (sample_id, source_uri)
            LEFT JOIN samples s USING (sample_id, source_uri)
            LEFT JOIN (SELECT sample_id, string_agg(tag, '; ' ORDER BY tag) AS tags FROM tags GROUP BY 1) t
            USING (sample_id) ORDER BY sample_id, source_uri
        ) TO {quoted(str(path))} (FORMAT {path.suffix[1:]})"""
    )


def tags_of(con: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> Mapping[str, list[str]]:
    """The tags of each of these samples that has any."""
    if not ids:
        return {}
    select = "SELECT sample_id, list(tag ORDER BY tag) FROM tags WHERE sample_id IN (SELECT unnest(?)) GROUP BY 1"
    return dict(con.execute(select, [list(ids)]).fetchall())


def _choose_by_score(con: duckdb.DuckDBPyConnection, wanted: SampleFilter) -> None:
    """Create the table `matching` of samples that have the score, within the range: one pass for count and page."""
    where, values = wanted.where()
    name = wanted.score.replace('"', '""')
    ends = {"listed_score >= ?": wanted.least, "listed_score <= ?": wanted.most}
    inside = "".join(f" AND {condition}" for condition, end in ends.items() if end is not None)
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE matching AS
        SELECT sample_id, source_uri, listed_score
        FROM (SELECT sample_id, source_uri, "{name}"::DOUBLE AS listed_score FROM scores)
        SEMI JOIN (SELECT sample_id, source_uri FROM decisions WHERE {where}) USING (sample_id, source_uri)
        WHERE listed_score IS NOT NULL{inside}""",
        [*values, *(end for end in ends.values() if end is not None)],
    )


def _captions(con: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> Mapping[tuple[str, str], str]:
    """By (sample id, address): the same picture may have another caption in another source."""
    if not ids:
        return {}
    select = "SELECT sample_id, source_uri, caption FROM samples WHERE sample_id IN (SELECT unnest(?))"
    return {(i, uri): caption for i, uri, caption in con.execute(select, [list(ids)]).fetchall()}


def facets(con: duckdb.DuckDBPyConnection) -> dict[str, list[Row]]:
    """Values of each filter with their counts."""
    columns = {"outcome": "outcome", "stage": "stage_reached", "filter": "filter"}
    return {
        name: rows(
            con,
            f"SELECT {column} AS value, count(*) AS n FROM decisions WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 1",
        )
        for name, column in columns.items()
    } | {"tag": rows(con, "SELECT tag AS value, count(*) AS n FROM tags GROUP BY 1 ORDER BY 1")}


def load_sample(workspace: Workspace, sample: str) -> dict[str, Any] | None:
    """What `flywheel explain` tells of a sample id, and what its row of the pool has; None if there is none.

    captions: (kind, text), the model's last; license, source_url, consent: as the source states them; references:
    (shard, row) of its reference pictures as far as the pool has them; masked: it has a mask of what the edit changed.
    """
    from curation.run import explain

    try:
        told = explain(workspace, latest_snapshot(workspace), sample)
    except UsageError:
        return None
    found: list[dict[str, Any]] = [r for r in told["rows"] if r["sample_id"] == sample]
    return found[0] | _pool_row(workspace, found[0]) if found else None


def _pool_row(workspace: Workspace, decision: Mapping[str, Any]) -> dict[str, Any]:
    from curation.captioning.written import ROW, with_written
    from curation.sources import pool

    listed = {s.key: s for s in pool.shards(workspace)}
    shard = listed[decision["shard"]]
    row = read_table(shard.path, [*ROW, "mask", *RIGHTS_NAMES]).slice(decision["row"], 1).to_pylist()[0]
    (row,) = with_written([row], shard.captions)
    captions = [(c["kind"], c["text"]) for c in row["captions"] or ()]
    places = [_place_of(shard, listed, image) for image in decision.get("reference_ids") or ()]
    more = {"captions": captions, "references": [p for p in places if p], "masked": row.get("mask") is not None}
    return more | {name: row.get(name) for name in RIGHTS_NAMES}  # pools of older versions lack some


def _place_of(near: Shard, listed: Mapping[str, Shard], image: str) -> tuple[str, int] | None:
    """(shard, row) of a picture of the pool by its image id: first where the edit lies, then in its batch."""
    batch = [s for s in listed.values() if s.path.parent == near.path.parent and s != near]
    for shard in (near, *batch):
        if (row := read_table(shard.path, ["image_id"])["image_id"].combine_chunks().index(image).as_py()) >= 0:
            return shard.key, row
    return None


def sample_picture(
    workspace: Workspace, shard: str, row: int, side: int, column: str = "image"
) -> tuple[bytes, str] | None:
    """Bytes and media type of a picture of the pool, or of its mask, with long side ≤ `side`; None without one."""
    from curation.sources.pool import shard_file

    path = shard_file(workspace, shard)
    if path is None:
        return None
    local = fetched(path)
    pictures = _pictures(str(local), local.stat().st_mtime_ns, column)
    try:
        data = pictures[row] if row < len(pictures) else None
        return thumbnail(data, side) if data else None
    except BadImage:
        return None


@lru_cache(maxsize=_SHARDS)
def _pictures(path: str, changed: int, column: str) -> list[bytes | None]:
    """All pictures of a shard. changed: its time of change, because erasing a picture rewrites its shard."""
    pictures: list[bytes | None] = read_table(path, [column])[column].to_pylist()
    return pictures
