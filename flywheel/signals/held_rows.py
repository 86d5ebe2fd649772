"""Rows of the pool to hold out: sound ones, drawn in proportion to their tasks and categories."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel.core.image import BadImage, decode, fitted
from flywheel.core.storage import readable
from flywheel.core.text import normalise
from flywheel.core.workspace import Workspace
from flywheel.signals.nulls import encode

if TYPE_CHECKING:
    from curation.policy.policy import Policy


@dataclass(frozen=True)
class Row:
    """A sound row of the pool. picture, references: PNG squares of the side that is evaluated."""

    sample_id: str
    image_ids: tuple[str, ...]  # of the picture and its references
    task: str
    category: str
    caption: str
    picture: bytes
    references: tuple[bytes, ...]


def drawn(workspace: Workspace, policy: Policy, count: int, *, side: int, seed: int) -> tuple[list[Row], int]:
    """(up to `count` sound rows with a caption of their own, in the order drawn; number of sound rows).

    Any first part of them has each task and category in proportion to its rows, so that no small one is emptied. Equal
    pool, policy and seed give equal rows. Only pictures of the drawn rows are read.
    """
    from curation.decide.sound import sound_rows

    table = sound_rows(workspace, policy)
    order = stratified(table, 2 * count, seed)  # twice as many: some do not decode, some captions repeat
    read = _read(workspace, order, side)
    rows: dict[str, Row] = {}
    for entry in order:
        row = read.get(entry["sample_id"])
        if row and normalise(row.caption) not in rows and len(rows) < count:
            rows[normalise(row.caption)] = row
    return list(rows.values()), table.num_rows


def stratified(rows: pa.Table, count: int, seed: int) -> list[dict[str, Any]]:
    """The first `count` rows of an order of which any first part has each (task, category) in proportion.

    Within a group the order is by keyed hash. Equal rows and seed give equal results, in whatever order the rows come.
    """
    with closing(duckdb.connect()) as connection:
        connection.register("given", rows)
        ordered = connection.sql(
            """WITH keyed AS (SELECT *, md5(concat_ws('/', ?::VARCHAR, 'held-out', sample_id)) AS key FROM given),
            placed AS (
                SELECT *, (row_number() OVER kind - 0.5) / count(*) OVER (PARTITION BY task, category) AS place
                FROM keyed WINDOW kind AS (PARTITION BY task, category ORDER BY key)
            )
            SELECT * EXCLUDE (key, place) FROM placed ORDER BY place, key LIMIT ?""",
            params=[str(seed), count],
        )
        return ordered.to_arrow_table().to_pylist()


def _read(workspace: Workspace, entries: Sequence[Mapping[str, Any]], side: int) -> dict[str, Row]:
    """{sample_id: row} of the entries with a caption and pictures that decode; each pool shard is read once."""
    from curation.captioning.written import ROW, with_written
    from curation.scorers.scoring import fetch_images, image_places
    from curation.sources import pool

    by_shard: dict[str, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for entry in entries:
        by_shard[entry["shard"]][entry["row"]] = entry
    wanted = sorted({i for entry in entries for i in entry["reference_ids"]})
    references = fetch_images(image_places(workspace, wanted))
    rows: dict[str, Row] = {}
    for shard in pool.shards(workspace):
        mine = by_shard.get(shard.key, {})
        if not mine:
            continue
        columns = [*ROW, "image"]
        table = pq.read_table(readable(shard.path), columns=columns).take(sorted(mine)).to_pylist()
        for number, row in zip(sorted(mine), with_written(table, shard.captions)):
            if found := _row(row, mine[number], references, side):
                rows[found.sample_id] = found
    return rows


def _row(row: Mapping[str, Any], entry: Mapping[str, Any], references: Mapping[str, bytes], side: int) -> Row | None:
    """None without a caption, or if a picture does not decode."""
    try:
        pictures = [square(p, side) for p in (row["image"], *(references[i] for i in entry["reference_ids"]))]
    except BadImage:
        return None
    if not row["caption"].strip():
        return None
    return Row(
        sample_id=row["sample_id"],
        image_ids=(entry["image_id"], *entry["reference_ids"]),
        task=row["task"],
        category=entry["category"] or "",
        caption=row["caption"],
        picture=pictures[0],
        references=tuple(pictures[1:]),
    )


def square(picture: bytes, side: int) -> bytes:
    """The picture as an evaluation draws it: a square of `side` pixels, PNG. Errors: `BadImage`."""
    return encode(fitted(decode(picture), side, side))
