"""What a workspace knows of URLs: lists in one form, plans of what to fetch, and the answers, all in `fetched/`.

fetched/lists/<list>.parquet      rows of one version of a list, in one form
fetched/00001-<digest>/plan.parquet       URLs to fetch, cut into parts
fetched/00001-<digest>/00000.parquet      answers of a part, with the pictures
fetched/00001-<digest>/journal/00000      answers of a part that is not finished, on this machine's disk
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources.files import File, is_remote
from curation.sources.urls.lists import ROWS, pages
from flywheel.core.errors import UsageError
from flywheel.core.files import digest, replacing
from flywheel.core.schema import column
from flywheel.core.storage import read_parquet, register
from flywheel.core.workspace import Workspace

ANSWERS = pa.schema(
    [
        column("uri", pa.string(), "the URL; list#row where a row has no usable one"),
        column("status", pa.string(), "fetched | refused | failed"),
        column("reason", pa.string(), "why it was refused or failed; empty where it was fetched"),
        column("code", pa.int32(), "HTTP status of the last answer; 0: none"),
        column("attempts", pa.int32(), "requests for the picture in this plan, redirects not counted"),
        column("final_url", pa.string(), "where the picture came from, after redirects"),
        column("content_type", pa.string(), "as the server said"),
        column("directives", pa.list_(pa.string()), "opt-outs that the server stated, honoured or not"),
        column("license", pa.string(), "licence that the list states, as written"),
        column("consent", pa.string(), "consent that the list states, as written"),
        column("size", pa.int64(), "bytes of the picture; 0 without one"),
        column("image", pa.large_binary(), "the picture as it was sent"),
    ]
)
_NONE = "select '' as uri, '' as status, '' as reason, 0 as size, 0 as attempts, '' as file, 0 as row where false"


class Store:
    """The folder `fetched` of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.root = workspace.path("fetched")
        self._workspace = workspace

    def listed(self, lists: Sequence[File]) -> list[Path]:
        """The lists in one form; each version of a list is converted once.

        A list on this machine that cannot be read is a row with a fault beside others. Errors: `UsageError`.
        """
        places = []
        for file in lists:
            place = self.root / "lists" / f"{digest(file.uri, file.size, file.mtime_ns)[:32]}.parquet"
            if not place.exists():
                with replacing(place) as tmp, pq.ParquetWriter(tmp, ROWS, compression="zstd") as writer:
                    for page in _pages(file, alone=len(lists) == 1):
                        writer.write_batch(page)
            places.append(place)
        return places

    def batches(self) -> list[Path]:
        """Every plan's folder, oldest first."""
        return sorted(p.parent for p in self.root.glob("*/plan.parquet"))

    def answers(self) -> list[Path]:
        """Every finished part, oldest plan first."""
        return sorted(p for p in self.root.glob("*/*.parquet") if p.stem.isdigit())

    def connect(self) -> Any:
        """DuckDB with the view `latest`: of each URL, its latest answer without the picture, and where that is."""
        import duckdb

        con = duckdb.connect()
        register(con, self.root)
        con.execute("set memory_limit = '1GB'; set preserve_insertion_order = false")
        con.execute(f"create view latest as {self._latest()}")
        return con

    def rows(self, lists: Sequence[File]) -> str:
        """SQL of the lists' rows: uri, list and row of its first appearance, all captions, licence, consent, fault."""
        places = self.listed(lists)
        orders = ", ".join(f"('{p.stem}', {n})" for n, p in enumerate(places))
        return f"""select uri, min((o.n, row)) as place, flatten(array_agg(captions order by (o.n, row))) as captions,
            min_by(license, (o.n, row)) filter (license is not null) as license,
            min_by(consent, (o.n, row)) filter (consent is not null) as consent, any_value(fault) as fault
            from {read_parquet(map(str, places), filename="true")}
            join (values {orders}) o(stem, n) on parse_filename(filename, true) = o.stem group by uri"""

    def _latest(self) -> str:
        files = [str(p) for p in self.answers()]
        if not files:
            return _NONE
        table = read_parquet(files, filename="true", file_row_number="true")
        return f"""select uri, arg_max(status, filename) as status, arg_max(reason, filename) as reason,
            arg_max(code, filename) as code, arg_max(size, filename) as size, sum(attempts) as attempts,
            max(filename) as file, arg_max(file_row_number, filename) as row from {table} group by uri"""


def _pages(file: File, *, alone: bool) -> Iterator[pa.RecordBatch]:
    rows = 0
    try:
        for page in pages(file):
            yield page
            rows += page.num_rows
    except UsageError as error:
        if alone or is_remote(file.uri):  # whose server may answer another time
            raise
        yield pa.RecordBatch.from_pylist([{"uri": file.uri, "row": rows, "captions": [], "fault": str(error)}], ROWS)


def batches_of(con: Any, sql: str, size: int = 10_000) -> Iterator[list[tuple[Any, ...]]]:
    """Rows of a query, some thousands at a time."""
    found = con.execute(sql)
    while rows := found.fetchmany(size):
        yield rows
