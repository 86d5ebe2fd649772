"""The pictures of URL lists as a source: what was fetched into the workspace, and why the rest was not."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources import BadInput, Input, Source
from curation.sources.files import File
from curation.sources.rights import Rights
from curation.sources.urls import FETCHED
from curation.sources.urls.lists import URL_NAMES, url_columns
from curation.sources.urls.store import Store, batches_of
from flywheel.core.errors import UsageError
from flywheel.core.storage import readable


@dataclass(frozen=True)
class UrlList:
    """One input per URL, which is its address; the captions of all its rows are kept.

    URLs that were refused, or that failed, are inputs with a fault. store: the workspace's, None before it is known.
    """

    address: str
    lists: tuple[File, ...]
    store: Store | None = None
    kind: str = "url list"

    def check(self) -> None:
        """Errors: `UsageError` if the first list has no column of URLs."""
        if not url_columns(self.lists[0]):
            names = ", ".join(URL_NAMES[:3])
            raise UsageError(f"source {self.lists[0].uri} cannot be read, or has no column of URLs, such as {names}")

    def inputs(self) -> list[Input]:
        """Every URL that has an answer, in the order of the lists. Errors: `UsageError` for a list without URLs."""
        return list(self.each())

    def narrowed(self, inputs: Sequence[Input]) -> UrlList:
        """The lists: the answers are in the workspace."""
        return self

    def each(self) -> Iterator[Input]:
        """As `inputs`, a page at a time."""
        store, none = self._store, True
        columns = "r.uri, r.captions, r.license, r.consent, l.status, l.reason, l.size"
        query = f"select {columns} from ({store.rows(self.lists)}) r join latest l using (uri) order by r.place"
        with store.connect() as con:
            for page in batches_of(con, query):
                for uri, captions, licence, consent, status, reason, size in page:
                    texts = tuple(("general", t) for t in dict.fromkeys(captions or ()))
                    fault = None if status == FETCHED else f"{status}: {reason}"
                    rights = Rights(licence, uri, consent)
                    none = False
                    yield Input(uri, size, captions=texts, rights=rights, fault=fault)
        if none:
            raise UsageError(f"source {self.address} holds no URLs that were asked for: run `flywheel fetch` first")

    def read(self, inputs: Sequence[Input]) -> Iterator[bytes | BadInput]:
        """The fetched bytes of each URL; a row group of answers is in memory at a time."""
        places = self._places([i.uri for i in inputs])
        opened, group, images = "", -1, pa.chunked_array([], pa.large_binary())
        ends: list[int] = []  # of each row group, in rows; an erasure makes some shorter
        for item in inputs:
            place = places.get(item.uri)
            if place is None:
                yield BadInput("changed while it was being ingested: ingest the source again")
                continue
            file, row = place
            if file != opened:
                parquet, opened, group = pq.ParquetFile(readable(file)), file, -1
                sizes = (parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups))
                ends = list(accumulate(sizes))
            if bisect_right(ends, row) != group:
                group = bisect_right(ends, row)
                images = parquet.read_row_group(group, columns=["image"]).column(0)
            yield images[row - (ends[group - 1] if group else 0)].as_py()

    def read_mask(self, item: Input) -> None:
        """A URL has no mask."""

    @property
    def _store(self) -> Store:
        if self.store is None:
            raise UsageError(f"source {self.address} is a list of URLs: run `flywheel fetch` first")
        return self.store

    def _places(self, uris: Sequence[str]) -> dict[str, tuple[str, int]]:
        """URL → (file, row) of its picture."""
        query = f"select l.uri, l.file, l.row from latest l join wanted using (uri) where l.status = '{FETCHED}'"
        with self._store.connect() as con:
            con.register("wanted", pa.table({"uri": pa.array(uris, pa.string())}))
            return {uri: (file, row) for page in batches_of(con, query) for uri, file, row in page}


def lists_of(source: Source) -> tuple[File, ...]:
    """The URL lists of a source, also of a mix."""
    if isinstance(source, UrlList):
        return source.lists
    layout = getattr(source, "layout", None)
    return layout.lists if layout else ()
