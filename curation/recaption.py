"""Caption the pool: which pictures lack a caption of this use, kind, model and prompt is a query; ask for those.

Answers are written per pool shard as soon as its last one is in. Killed, or without an answer: run it again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curation import pool
from curation.captioner import Answer, Captioner, Refused, Unanswered
from curation.generated import set_folder, write_sidecar
from flywheel.workspace import UsageError, Workspace

_IN_A_ROW = 20  # calls without an answer, or refusals before the first caption: the endpoint is to blame

Progress = Callable[[int, int, str], None]


@dataclass
class Captioned:
    """What came of the pictures: wanted = there + captioned + refused + left. `there` were answered by earlier runs."""

    wanted: int = 0
    there: int = 0
    captioned: int = 0
    refused: int = 0
    unanswered: int = 0  # of those left: asked, without an answer
    reasons: Counter[str] = field(default_factory=Counter)  # of refusals

    @property
    def left(self) -> int:
        """Pictures to ask for next time."""
        return self.wanted - self.there - self.captioned - self.refused


@dataclass
class _Work:
    """The pictures to ask for in one pool shard, and the answers so far."""

    shard: pool.Shard
    ids: dict[str, int]  # sample id → row
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    open: int = 0


def caption_pool(
    workspace: Workspace,
    captioner: Captioner,
    *,
    kind: str,
    use: str,
    limit: int | None = None,
    concurrency: int = 8,
    progress: Progress | None = None,
) -> Captioned:
    """Ask for every missing caption, at most `limit`, `concurrency` at once.

    Every text-to-image picture is asked for, with `use` fill those without a caption of their own. An answer that is
    refused is recorded with its reason and not asked for again; one that does not come is. Errors: `UsageError` for an
    empty pool and for an endpoint that refuses every call or does not answer.
    """
    if not pool.batches(workspace):
        raise UsageError(f"the pool of {workspace.root} is empty: ingest a source first")
    folder = set_folder(workspace, use, kind, captioner.model, captioner.version)
    result = Captioned()
    work = _missing(workspace, folder, use, limit, result)
    asyncio.run(_Run(captioner, folder, {"kind": kind, "use": use}, concurrency, result, progress).all(work))
    return result


def _missing(workspace: Workspace, folder: Path, use: str, limit: int | None, result: Captioned) -> list[_Work]:
    """Shards with pictures to ask for; each distinct picture once. Counts `wanted` and `there`."""
    done = {i for p in folder.glob("[!.]*.parquet") for i in pq.read_table(p, columns=["sample_id"])[0].to_pylist()}
    seen: set[str] = set()
    work, asked = [], 0
    for shard in pool.shards(workspace):
        table = pq.read_table(shard.path, columns=["sample_id", "task", "caption"])
        ids: dict[str, int] = {}
        for row, (sample, task, caption) in enumerate(zip(*(c.to_pylist() for c in table.columns))):
            if task != "t2i" or sample in seen or (use == "fill" and caption.strip()):
                continue
            seen.add(sample)
            result.wanted += 1
            result.there += sample in done
            if sample not in done and (limit is None or asked < limit):
                ids[sample] = row
                asked += 1
        if ids:
            work.append(_Work(shard, ids, open=len(ids)))
    return work


class _Run:
    """Calls in flight, and what is known about the endpoint."""

    def __init__(
        self,
        captioner: Captioner,
        folder: Path,
        labels: dict[str, str],
        concurrency: int,
        result: Captioned,
        progress: Progress | None,
    ) -> None:
        self.captioner, self.folder, self.result, self.progress = captioner, folder, result, progress
        self.labels = labels | {"model": captioner.model, "prompt": captioner.version}
        self.concurrency = concurrency
        self.silent = 0

    async def all(self, work: list[_Work]) -> None:
        """Ask for everything; what was answered is written even when the run ends in an error."""
        total = sum(len(w.ids) for w in work)
        pictures = _pictures(work)
        try:
            async with self.captioner.client(self.concurrency) as client, asyncio.TaskGroup() as group:
                for _ in range(min(self.concurrency, total)):
                    group.create_task(self._worker(client, pictures, total))
        except* UsageError as errors:
            if not self.result.captioned:
                work = []  # refusals that the endpoint is to blame for are no answers
            raise errors.exceptions[0] from None
        finally:
            for part in work:
                self._write(part)

    async def _worker(self, client: Any, pictures: Iterator[tuple[_Work, str, bytes]], total: int) -> None:
        for work, sample, image in pictures:  # shared by all workers: each picture is taken once
            row = await self._row(client, sample, image)
            if row is not None:
                work.rows[sample] = row
            work.open -= 1
            if not work.open and self.result.captioned:
                self._write(work)
            if self.progress:
                done = self.result.captioned + self.result.refused + self.result.unanswered
                self.progress(done, total, "pictures captioned")

    async def _row(self, client: Any, sample: str, image: bytes) -> dict[str, Any] | None:
        """The side-car row of one picture; None where no answer came."""
        row: dict[str, Any] = {"sample_id": sample} | self.labels
        try:
            answer: Answer = await self.captioner.ask(client, image)
        except Refused as error:
            self.silent = 0
            self.result.refused += 1
            self.result.reasons[str(error)] += 1
            if not self.result.captioned and self.result.refused >= _IN_A_ROW:
                raise UsageError(
                    f"the first {_IN_A_ROW} answers of {self.captioner.model} are refused: {error}"
                ) from error
            return row | {"error": str(error)}
        except Unanswered as error:
            self.result.unanswered += 1
            self.silent += 1
            if self.silent >= _IN_A_ROW:
                raise UsageError(
                    f"{self.captioner.endpoint} does not answer ({error}): start the server, then run this again"
                ) from error
            return None
        self.silent = 0
        self.result.captioned += 1
        return row | answer.model_dump() | {"error": None}

    def _write(self, work: _Work) -> None:
        if work.rows:
            write_sidecar(self.folder, work.shard.key, [work.rows[i] for i in work.ids if i in work.rows])
            work.rows = {}


def _pictures(work: list[_Work]) -> Iterator[tuple[_Work, str, bytes]]:
    """Every picture to ask for, a shard's bytes in memory at a time."""
    for part in work:
        images = pq.read_table(part.shard.path, columns=["image"])["image"].take(list(part.ids.values()))
        for sample, image in zip(part.ids, images):
            yield part, sample, image.as_py()
