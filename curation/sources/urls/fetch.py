"""Fetch what the lists name and no answer is known for: Ray tasks, each for a part of some hundred URLs.

Run again after a kill, it finishes the same parts: answers that were there are not asked for again.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources.files import File
from curation.sources.urls import FAILED, FETCHED, REFUSED, Fetching, Outcome
from curation.sources.urls.client import Client
from curation.sources.urls.hosts import Hosts, Manners
from curation.sources.urls.journal import Journal
from curation.sources.urls.store import ANSWERS, Store
from flywheel.core.cluster import cluster, run_all, shared
from flywheel.core.erased import REASON, erased_images
from flywheel.core.files import digest, replacing
from flywheel.core.mirror import mirror
from flywheel.core.storage import located, readable
from flywheel.core.workspace import Workspace

_ROW_GROUP = 64  # answers in memory at a time when a part is written
_LEASE = 60.0  # seconds beyond the time limit, after which the slot of a task that died is free

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Fetched:
    """Ends of this call's URLs, and the number of URLs whose end was known before."""

    fetched: int = 0
    refused: int = 0
    failed: int = 0
    known: int = 0

    @property
    def line(self) -> str:
        """The counts in one sentence."""
        return f"{self.fetched} fetched, {self.refused} refused, {self.failed} failed, {self.known} known before"


def fetch(
    workspace: Workspace,
    lists: Sequence[File],
    settings: Fetching = Fetching(),
    *,
    retry: bool = False,
    workers: int = 2,
    progress: Progress | None = None,
) -> Fetched:
    """Bring every URL of the lists to an end: fetched, refused or failed. retry: ask again for those that failed.

    A part that a kill left unfinished is finished first, whatever list it is of. Errors: `UsageError` for a list that
    cannot be read, or when Ray does not start.
    """
    store = Store(workspace)
    before = {str(p) for p in store.answers()}
    _run(workspace, _unfinished(store), settings, workers, progress)  # before the plan: it asks for what has no answer
    if _plan(store, lists, settings, retry=retry) is not None:
        _run(workspace, _unfinished(store), settings, workers, progress)
    query = f"""select l.status, l.file, count(*) from ({store.rows(lists)}) r join latest l using (uri)
        group by all"""
    counts: Counter[str] = Counter()
    with store.connect() as con:
        for status, file, urls in con.execute(query).fetchall():
            counts["known" if file in before else status] += urls
    return Fetched(**counts)


def _plan(store: Store, lists: Sequence[File], settings: Fetching, *, retry: bool) -> Path | None:
    """Write the folder of a new plan, one row group per part; None if there is nothing to fetch."""
    wanted = f"l.status = '{FAILED}'" if retry else "false"
    query = f"""select r.uri, r.license, r.consent, r.fault from ({store.rows(lists)}) r left join latest l using (uri)
        where l.uri is null or ({wanted} and r.fault is null)
        order by coalesce(l.attempts, 0), r.place"""  # what a host was given up for comes before what it fails at
    number = len(store.batches()) + 1
    key = digest(number, [(f.uri, f.size, f.mtime_ns) for f in lists], retry)
    place = store.root / f"{number:05d}-{key[:8]}" / "plan.parquet"
    with store.connect() as con:
        reader = con.sql(query).to_arrow_reader(settings.part_rows)
        tables = _rechunked((pa.Table.from_batches([b]) for b in reader), settings.part_rows)
        first = next(tables, None)
        if first is None:
            return None
        with replacing(place) as tmp, pq.ParquetWriter(tmp, first.schema, compression="zstd") as writer:
            writer.write_table(first)
            for table in tables:
                writer.write_table(table)
    return place.parent


def _rechunked(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of a fixed number of rows; the last may have fewer."""
    rest: pa.Table | None = None
    for table in tables:
        rest = table if rest is None else pa.concat_tables([rest, table])
        while rest.num_rows >= rows:
            yield rest.slice(0, rows)
            rest = rest.slice(rows)
    if rest is not None and rest.num_rows:
        yield rest


def _unfinished(store: Store) -> list[tuple[str, int, int]]:
    """(folder, number, rows) of each part without answers."""
    parts = []
    for batch in store.batches():
        plan = pq.read_metadata(readable(batch / "plan.parquet"))
        done = {p.stem for p in batch.glob("*.parquet")}
        parts += [
            (str(batch), n, plan.row_group(n).num_rows) for n in range(plan.num_row_groups) if f"{n:05d}" not in done
        ]
    return parts


def _run(
    workspace: Workspace,
    parts: Sequence[tuple[str, int, int]],
    settings: Fetching,
    workers: int,
    progress: Progress | None,
) -> None:
    """Fetch the parts on Ray."""
    if not parts:
        return
    erased = erased_images(workspace)
    done, total = 0, sum(rows for _, _, rows in parts)
    with cluster(workers), shared(Hosts, settings.per_host, settings.timeout + _LEASE) as hosts:
        calls = [(batch, number, settings, hosts, erased) for batch, number, _ in parts]
        for index, result in run_all(fetch_part, calls):
            if isinstance(result, Exception):
                raise result
            done += parts[index][2]
            if progress:
                progress(done, total, "URLs")


# One part ------------------------------------------------------------------------------------------------------------
def fetch_part(batch: str, number: int, settings: Fetching, hosts: Any, erased: frozenset[str] = frozenset()) -> None:
    """Fetch one part of a plan and write its answers; those that an earlier try has written down are kept.

    erased: SHA-256 of pictures that are not kept.
    """
    folder = located(batch)
    place = folder / f"{number:05d}.parquet"
    table = pq.ParquetFile(readable(folder / "plan.parquet")).read_row_group(number)
    notes = mirror(folder) / "journal" / f"{number:05d}"
    notes.parent.mkdir(parents=True, exist_ok=True)
    with open(notes.with_suffix(".lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a worker of a run that was killed may still be at it
        if place.exists():
            return
        rows = table.to_pylist()
        with closing(Journal(notes)) as journal:
            todo = [r["uri"] for r in rows if r["fault"] is None and r["uri"] not in journal.places]
            asyncio.run(_fetch_all(todo, settings, Manners(hosts), journal))
            _write(place, rows, journal, erased)
        notes.unlink()
        notes.with_suffix(".lock").unlink()  # who waits for it finds the answers


async def _fetch_all(urls: Sequence[str], settings: Fetching, manners: Manners, journal: Journal) -> None:
    """Fetch URLs, the hosts at the same time and each host as its limits allow."""
    by_host: defaultdict[str, list[str]] = defaultdict(list)
    for url in reversed(urls):
        by_host[_host(url)].append(url)

    async def work(waiting: list[str]) -> None:
        while waiting:
            url = waiting.pop()
            journal.add(url, await client.fetch(url))

    async with Client(settings, manners) as client, asyncio.TaskGroup() as group:
        for waiting in by_host.values():
            for _ in range(min(settings.per_host, len(waiting))):
                group.create_task(work(waiting))


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _write(place: Path, rows: Sequence[Mapping[str, Any]], journal: Journal, erased: frozenset[str]) -> None:
    with (
        replacing(place) as tmp,
        pq.ParquetWriter(tmp, ANSWERS, compression="none", use_dictionary=False, write_statistics=["uri"]) as writer,
    ):
        for start in range(0, len(rows), _ROW_GROUP):
            answers = [_answer(row, journal, erased) for row in rows[start : start + _ROW_GROUP]]
            writer.write_table(pa.Table.from_pylist(answers, schema=ANSWERS))


def _answer(row: Mapping[str, Any], journal: Journal, erased: frozenset[str]) -> dict[str, Any]:
    outcome = Outcome(REFUSED, row["fault"]) if row["fault"] is not None else journal.read(row["uri"])
    if outcome.image and hashlib.sha256(outcome.image).hexdigest() in erased:
        outcome = Outcome(REFUSED, REASON)
    kept = {k: row[k] for k in ("uri", "license", "consent")}
    size = len(outcome.image or b"") if outcome.status == FETCHED else 0
    return {**vars(outcome), "directives": list(outcome.directives), "size": size, **kept}
