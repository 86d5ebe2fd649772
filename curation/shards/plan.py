"""Which rows make which shard file. Files are named by their content: snapshots share what they have in common.

A file holds rows of one layout, task and set of stages, in pool order. It ends after a row whose `mark` says so, or
when it is full: where files end depends on the rows around that place alone, so rows that come or go change only the
files around them. Files of the first million rows of a pool are small, so that all cores have work; later ones are
large, so that a billion rows are few files. The name is a digest of all that a file's rows are made of. Planning is
SQL; Python sees files, not rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.policy import sql
from curation.shards.fit import ENCODING
from curation.shards.layout import layouts_of
from curation.shards.rows import Work
from curation.sources import pool
from flywheel.core.files import digest
from flywheel.core.records import Manifest, ShardFile
from flywheel.core.schema import ROW_GROUP
from flywheel.core.scratch import Scratch
from flywheel.core.storage import read_parquet
from flywheel.core.workspace import Workspace

FORMAT = 1  # raised when equal inputs would give another file
_FAR = 1 << 20  # place in the pool from which files are large
_PIXELS = {False: 1 << 28, True: 1 << 30}  # of a file, on average, by whether its rows are far: up to 100, and 500 MB
_ROWS = {False: 512, True: 8192}  # of a file, on average, at most: a file is one task's work
_FULL = 2  # times the average

_KEY = 'bucket, layout_width, layout_height, task, "references", stages, far'
_SPOOLED = "shard, row, turn, balance, made_from, reference_places, further"


@dataclass(frozen=True)
class Planned:
    """A shard file: its entry in the manifest, without what only the written file tells.

    path: relative to the folder of manifests. least_weight: smallest weight of a row that is drawn; 0 if none is.
    """

    path: str
    stages: tuple[str, ...]
    bucket: int
    width: int
    height: int
    task: str
    references: int
    rows: int
    least_weight: float

    @property
    def kind(self) -> tuple[int, int, int, str, int]:
        """What files have in common whose rows can move from one to the other without being encoded again."""
        return self.bucket, self.width, self.height, self.task, self.references


@dataclass(frozen=True)
class Plan:
    """The shard files of a snapshot in a fixed order, and what is needed to write those that are missing.

    missing: path → its row group of `spool`, a Parquet file. encodes: rows of them whose pictures no file holds. older:
    {path of a file that rows may be copied from: its SHA-256}. weights: as in a manifest.
    """

    files: tuple[Planned, ...]
    missing: Mapping[str, int]
    encodes: int
    weights: Mapping[str, Mapping[str, float]]
    shards: Mapping[str, pool.Shard]
    spool: Path
    older: Mapping[str, str]

    def work(self, folder: Path, files: Sequence[Planned]) -> Iterator[Work]:
        """What writes each of these missing files into the folder of manifests; reads one file's rows at a time."""
        with pq.ParquetFile(self.spool) as spool:
            for file in files:
                rows = spool.read_row_group(self.missing[file.path])
                older = {p: self.older[p] for p in rows["older"].unique().to_pylist() if p is not None}
                yield Work(str(folder / file.path), file.width, file.height, rows, self._named(rows), older)

    def _named(self, rows: pa.Table) -> dict[str, pool.Shard]:
        """The pool shards that rows name."""
        keys = set(rows["shard"].unique().to_pylist())
        for column in ("reference_places", "further"):
            keys |= set(rows[column].combine_chunks().flatten().field("shard").unique().to_pylist())
        return {key: self.shards[key] for key in sorted(keys)}


@contextmanager
def planned(workspace: Workspace, admitted: Path) -> Iterator[Plan]:
    """The plan of the admitted rows in a file (`curation.policy.answers.admitted`).

    Missing rows wait in a temporary file. Memory: DuckDB's, and one row for each file.
    """
    shards, folder = {s.key: s for s in pool.shards(workspace)}, workspace.path("shards")
    with Scratch() as scratch, sql.connect(workspace) as con:
        con.execute(f"SET temp_directory = {sql.quoted(str(scratch))}")
        con.execute(f"CREATE TEMP VIEW admitted AS FROM {read_parquet([str(admitted)])}")
        _place(con, shards)
        files = _files(con)
        buckets = sorted({f.bucket for f in files})
        there = {f"{bucket}/{path.name}" for bucket in buckets for path in (folder / f"{bucket}").glob("*.parquet")}
        missing = {f.path: n for n, f in enumerate(f for f in files if f.path not in there)}
        older = _older(workspace, files, missing)
        spool = scratch / "rows.parquet"
        encodes = _spool(con, missing, older, spool) if missing else 0
        query = "SELECT DISTINCT bucket, balance, weight FROM placed WHERE balance IS NOT NULL ORDER BY 1, 2"
        weights: dict[str, dict[str, float]] = {}
        for bucket, group, weight in con.execute(query).fetchall():
            weights.setdefault(str(bucket), {})[group] = weight
        yield Plan(tuple(files), missing, encodes, weights, shards, spool, older)


def listed(folder: Path) -> dict[str, ShardFile]:
    """Every shard file that a manifest in this folder lists, by its path."""
    manifests = (Manifest.read(path) for path in sorted(folder.glob("*.json")))
    return {f.path: f for manifest in manifests for f in manifest.files}


def _place(con: duckdb.DuckDBPyConnection, shards: Mapping[str, pool.Shard]) -> None:
    """Create the table `placed`: admitted rows with the path of their file."""
    sizes = con.sql("SELECT DISTINCT bucket, width, height FROM admitted ORDER BY ALL").to_arrow_table()
    con.register("sizes", _with_layouts(sizes))
    texts = {key: digest([p.parts[-3:] for p in s.captions])[:16] if s.captions else "" for key, s in shards.items()}
    columns = [pa.array(list(values), pa.string()) for values in (texts, texts.values())]
    con.register("texts", pa.table(columns, ["shard", "texts"]))
    con.execute(
        """CREATE TEMP TABLE equals AS
        SELECT n, bucket, string_agg(concat(f.content, '+', texts), ',' ORDER BY place) AS equals
        FROM (SELECT n, bucket, unnest(further) AS f, generate_subscripts(further, 1) AS place FROM admitted)
        JOIN texts ON texts.shard = f.shard GROUP BY ALL"""
    )
    # an edit's mask is part of its content
    pictures = f"""concat_ws(chr(31), {ENCODING}, image_id, turn, layout_width, layout_height,
        array_to_string([r.image_id for r in reference_places], ','), if(task = 't2i', 0, content))"""
    made_of = "concat_ws(chr(31), sample_id, source_uri, content, texts, coalesce(equals, ''), balance, made_from)"
    con.execute(
        f"""CREATE TEMP TABLE placed AS
        WITH rows AS (
            SELECT a.*, layout_width, layout_height, n >= {_FAR} AS far,
                   if(far, average_far, average) AS rows_of_a_file,
                   mark % rows_of_a_file = 0 AS ends, texts, equals, md5_number_lower({pictures}) AS made_from
            FROM admitted a JOIN sizes USING (bucket, width, height) JOIN texts USING (shard)
            LEFT JOIN equals USING (n, bucket)),
        runs AS (SELECT *, coalesce(sum(CAST(ends AS INTEGER)) OVER (PARTITION BY {_KEY} ORDER BY n
                     ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS run FROM rows),
        parts AS (SELECT *, (row_number() OVER (PARTITION BY {_KEY}, run ORDER BY n) - 1)
                      // (rows_of_a_file * {_FULL}) AS part
                  FROM runs)
        SELECT * EXCLUDE (run, part, ends, far, rows_of_a_file, texts, equals), md5({made_of}) AS made_of,
               dense_rank() OVER (ORDER BY {_KEY}, run, part) AS file FROM parts"""
    )


def _with_layouts(sizes: pa.Table) -> pa.Table:
    """Sizes (bucket, width, height) with their layout and the average number of rows of its files."""
    bucket, width, height = (sizes[c].to_numpy() for c in ("bucket", "width", "height"))
    chosen = np.zeros((len(bucket), 2), np.int32)
    for one in np.unique(bucket):
        here = bucket == one
        chosen[here] = layouts_of(width[here], height[here], int(one))
    columns = {"layout_width": chosen[:, 0], "layout_height": chosen[:, 1]}
    for name, far in (("average", False), ("average_far", True)):
        rows = [average_rows(int(pixels), far=far) for pixels in chosen.prod(1, dtype=np.int64)]
        columns[name] = np.array(rows, np.int64)
    for name, values in columns.items():
        sizes = sizes.append_column(name, pa.array(values))
    return sizes


@lru_cache(maxsize=256)
def average_rows(pixels: int, *, far: bool) -> int:
    """Rows per file, on average, of a layout with so many pixels: whole row groups. far: beyond the first million."""
    return min(max(_PIXELS[far] // (pixels * ROW_GROUP) * ROW_GROUP, ROW_GROUP), _ROWS[far])


def _files(con: duckdb.DuckDBPyConnection) -> list[Planned]:
    """The files in order, and their paths in the table `paths`."""
    query = """SELECT file, any_value(bucket), any_value(layout_width), any_value(layout_height), any_value(task),
        any_value("references"), any_value(stages), count(*),
        coalesce(min(weight) FILTER (weight > 0), 0), md5(string_agg(made_of, '' ORDER BY n))
        FROM placed GROUP BY file ORDER BY file"""
    files, numbers = [], []
    for number, bucket, width, height, task, references, stages, rows, least, made_of in con.execute(query).fetchall():
        name = f"{width}x{height}-{task}{references}-{stages.replace(' ', '')}-{digest(FORMAT, made_of)[:16]}.parquet"
        shape = (bucket, width, height, task, references, rows, least)
        files.append(Planned(f"{bucket}/{name}", tuple(stages.split()), *shape))
        numbers.append(number)
    paths = pa.array([f.path for f in files], pa.string())
    con.register("paths", pa.table({"file": pa.array(numbers, pa.int64()), "path": paths}))
    return files


def _older(workspace: Workspace, files: Sequence[Planned], missing: Collection[str]) -> dict[str, str]:
    """Files of other snapshots that this one does not share, and that may hold pictures of its missing files."""
    folder = workspace.path("shards")
    kinds, mine = {f.kind for f in files if f.path in missing}, {f.path for f in files}
    others = [f for path, f in listed(folder).items() if path not in mine] if missing else []
    return {
        str(folder / f.path): f.sha256
        for f in others
        if (f.bucket, f.width, f.height, f.task, f.references) in kinds and (folder / f.path).exists()
    }


def _spool(con: duckdb.DuckDBPyConnection, missing: Mapping[str, int], older: Mapping[str, str], spool: Path) -> int:
    """Write the rows of the missing files, a row group for each, with the place of their pictures in older files.

    Returns the number of rows whose pictures are in none.
    """
    con.register("wanted", pa.table({"path": list(missing), "group": pa.array(list(missing.values()), pa.int64())}))
    copies = "SELECT NULL::VARCHAR AS sample_id, NULL::UBIGINT AS made_from, NULL AS older, NULL AS older_row"
    if older:
        source = read_parquet(older, filename="true", file_row_number="true")
        copies = f"""SELECT sample_id, made_from, min({{'older': filename, 'older_row': file_row_number}}) AS place
            FROM {source} WHERE made_from IS NOT NULL GROUP BY ALL"""
        copies = f"SELECT sample_id, made_from, place.older, place.older_row FROM ({copies})"
    query = f"""SELECT "group", {_SPOOLED}, CAST(older AS VARCHAR) AS older, CAST(older_row AS BIGINT) AS older_row
        FROM placed JOIN paths USING (file) JOIN wanted USING (path)
        LEFT JOIN ({copies}) USING (sample_id, made_from) ORDER BY "group", n"""
    reader, encodes = con.sql(query).to_arrow_reader(65_536), 0
    with pq.ParquetWriter(spool, reader.schema.remove(0)) as writer:
        for rows in _by_group(reader):
            writer.write_table(rows, row_group_size=max(1, rows.num_rows))
            encodes += rows["older"].null_count
    return encodes


def _by_group(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables of one value of the first column each, which is ascending, without that column."""
    waiting: list[pa.Table] = []
    for batch in batches:
        table = pa.Table.from_batches([batch])
        groups = table.column(0).to_numpy()
        starts = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(groups)]
        for start, end in zip(starts, starts[1:]):
            piece = table.slice(start, end - start)
            if waiting and waiting[0].column(0)[0] != piece.column(0)[0]:
                yield pa.concat_tables(waiting).remove_column(0)
                waiting = []
            waiting.append(piece)
    if waiting:
        yield pa.concat_tables(waiting).remove_column(0)
