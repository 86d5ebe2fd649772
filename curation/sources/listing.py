"""What a source lists, as a table beside the plans of the pool: what is new is an anti-join, and no set in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.sources import Input, Source
from curation.sources.corrections import Texts
from curation.sources.rights import Rights
from flywheel.core import lens
from flywheel.core.scratch import Scratch
from flywheel.core.storage import quoted, read_parquet, readable
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

ROWS = 8192  # inputs in memory at a time
_TEXTS = pa.list_(pa.struct([pa.field("kind", pa.string()), pa.field("text", pa.large_string())]))
LISTED = pa.schema(
    [
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("position", pa.int64()),
        ("task", pa.string()),
        ("stream", pa.string()),
        ("captions", _TEXTS),
        ("references", pa.list_(pa.string())),
        ("mask", pa.string()),
        ("rights", pa.list_(pa.string())),  # as the fields of `Rights`
        ("fault", pa.string()),
    ]
)
PLAN = LISTED.append(pa.field("chunk", pa.int32()))

_MEMORY = "400MB"  # of DuckDB; what needs more goes to files
# The MD5 of `Input.key`: of ten million addresses, what is compared fits in memory.
_KEY = """md5_number(concat_ws(chr(31), uri, coalesce(size, -1), coalesce(mtime_ns, -1),
    if(task = 'ti2i', concat_ws(chr(31), coalesce(captions[1].text, ''), array_to_string("references", chr(31))), '')))
    AS key"""
_FRESH = "listing l ANTI JOIN known k ON k.place = l.file_row_number"
_COLUMNS = ", ".join(f'l."{name}"' for name in LISTED.names)


class Listing:
    """The inputs of a source, compared with the finished batches of a pool. count: of inputs; fresh: of new ones."""

    def __init__(self, con: duckdb.DuckDBPyConnection, workspace: Workspace, count: int) -> None:
        self._con, self._workspace, self.count = con, workspace, count
        con.execute(f"CREATE TEMP TABLE keys AS SELECT file_row_number AS place, {_KEY} FROM listing")
        con.execute(f"CREATE TEMP TABLE known AS {self._known(plans(workspace))}")
        ((self.fresh,),) = con.execute("SELECT count(*) FROM keys ANTI JOIN known USING (place)").fetchall()

    def fresh_sizes(self) -> np.ndarray:
        """int64: bytes of the new inputs, in order."""
        query = f"SELECT size FROM {_FRESH} ORDER BY file_row_number"
        return np.asarray(self._con.sql(query).fetchnumpy()["size"], np.int64)

    def fresh_rows(self) -> Iterator[pa.RecordBatch]:
        """The new inputs, in order, with the columns `LISTED`."""
        query = f"SELECT {_COLUMNS} FROM {_FRESH} ORDER BY file_row_number"
        for batch in self._con.sql(query).to_arrow_reader(ROWS):
            yield pa.RecordBatch.from_arrays(
                [c.cast(f.type) for c, f in zip(batch.columns, LISTED, strict=True)], schema=LISTED
            )

    def among(self, batches: Sequence[Path]) -> int:
        """Number of inputs that the plans of these batches hold."""
        if not batches:
            return 0
        source = _read([b / "plan.parquet" for b in batches])
        query = f"SELECT count(*) FROM keys SEMI JOIN (SELECT {_KEY} FROM {source}) USING (key)"
        ((count,),) = self._con.execute(query).fetchall()
        return int(count)

    def told_otherwise(self, told: Iterable[str]) -> Iterator[tuple[Input, Texts]]:
        """Known T2I inputs with captions that are not those of their plan, each with those.

        told: URIs whose captions were corrected before, which are given too.
        """
        self._con.register("told", pa.table({"uri": pa.array(list(told), pa.string())}))
        query = f"""SELECT {_COLUMNS}, k.captions AS planned FROM listing l JOIN known k ON k.place = l.file_row_number
            WHERE l.task = 't2i' AND len(l.captions) > 0
              AND (l.captions IS DISTINCT FROM k.captions OR l.uri IN (FROM told)) ORDER BY k.place"""
        for batch in self._con.sql(query).to_arrow_reader(ROWS):
            for row in batch.to_pylist():
                planned = tuple((c["kind"], c["text"]) for c in row.pop("planned"))
                yield input_of(row), planned

    def _known(self, files: Sequence[Path]) -> str:
        """SELECT of (place, captions) of known inputs; of several plans, the captions of the last."""
        if not files:
            return "SELECT place, NULL AS captions FROM keys WHERE false"
        source = _read(files)
        return f"""SELECT place, arg_max(captions, (file_index, file_row_number)) AS captions
            FROM keys JOIN (SELECT {_KEY}, captions, file_index, file_row_number FROM {source}) USING (key)
            GROUP BY place"""


@contextmanager
def listing(source: Source) -> Iterator[tuple[Path, int]]:
    """(file of everything that the source lists, number of inputs) while the context lasts.

    Errors: `UsageError` of the source.
    """
    with Scratch() as scratch:
        path, count, rows = scratch / "listing.parquet", 0, source.each()
        with pq.ParquetWriter(path, LISTED, compression="lz4") as writer:
            while part := list(islice(rows, ROWS)):
                writer.write_table(pa.Table.from_pylist([row_of(i) for i in part], schema=LISTED))
                count += len(part)
        yield path, count


@contextmanager
def compared(workspace: Workspace, path: Path, count: int) -> Iterator[Listing]:
    """A file of `listing` compared with the pool as it is now."""
    with lens.connect(workspace) as con:
        con.execute(f"SET temp_directory = {quoted(str(path.parent))}; SET memory_limit = '{_MEMORY}'")
        con.execute(f"CREATE TEMP VIEW listing AS FROM {_read([path])}")
        yield Listing(con, workspace, count)


def plans(workspace: Workspace) -> list[Path]:
    """Plans of the finished batches, oldest first."""
    return [p for b in workspace.batches() if (p := b / "plan.parquet").exists()]


def known_addresses(workspace: Workspace, batch: Path) -> list[str]:
    """URIs of a batch's plan that an earlier, finished batch had planned too."""
    files = [p for p in plans(workspace) if p.parent != batch]
    if not files:
        return []
    with lens.connect(workspace) as con:
        here, there = (f"(SELECT uri FROM {_read(paths)})" for paths in ([batch / "plan.parquet"], files))
        found = con.execute(f"SELECT DISTINCT uri FROM {here} SEMI JOIN {there} USING (uri)").fetchall()
        return [uri for (uri,) in found]


def read_plan(
    batch: Path, *, chunks: Sequence[int] | None = None, uris: Iterable[str] | None = None
) -> list[tuple[int, Input]]:
    """(chunk, input) in the order of a batch's plan; only those of some chunks, or with some URIs."""
    wanted = pc.scalar(True)
    if chunks is not None:
        wanted &= pc.field("chunk").isin(pa.array(sorted(chunks), pa.int32()))
    if uris is not None:
        wanted &= pc.field("uri").isin(pa.array(sorted(uris), pa.string()))
    table = pq.read_table(readable(batch / "plan.parquet"), filters=wanted)
    return [(row.pop("chunk"), input_of(row)) for row in table.to_pylist()]


def row_of(item: Input) -> dict[str, Any]:
    """A row with the columns `LISTED`."""
    return vars(item) | {"captions": [{"kind": k, "text": t} for k, t in item.captions]}


def input_of(row: Mapping[str, Any]) -> Input:
    """The input of a row with the columns `LISTED`."""
    texts = tuple((c["kind"], c["text"]) for c in row["captions"])
    more = {"captions": texts, "references": tuple(row["references"]), "rights": Rights(*row.get("rights") or ())}
    return Input(**(dict(row) | more))


def _read(files: Sequence[Path]) -> str:
    return read_parquet(map(str, files), file_row_number="true", union_by_name="true")
