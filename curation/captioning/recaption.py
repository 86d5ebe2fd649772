"""Caption the pool: ask for every picture that lacks a caption of this use, kind, model and prompt.

The answers of a pool shard are written once the last one has arrived. Run it again after a kill or missing answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curation.captioning.captioner import Captioner, Refused
from curation.captioning.written import set_folder, write_sidecar
from curation.sources import pool
from flywheel.core.endpoint import Unanswered
from flywheel.core.errors import UsageError
from flywheel.core.storage import readable
from flywheel.core.text import untold
from flywheel.core.workspace import Workspace

_IN_A_ROW = 20  # calls in a row without an answer, or refusals before the first caption, that end the run

Progress = Callable[[int, int, str], None]


@dataclass
class Captioned:
    """Counts of pictures: wanted = there + captioned + refused + left. `there`: answered by earlier runs."""

    wanted: int = 0
    there: int = 0
    captioned: int = 0
    refused: int = 0
    unanswered: int = 0  # those of `left` that were asked for
    reasons: Counter[str] = field(default_factory=Counter)  # reasons of refusals

    @property
    def left(self) -> int:
        """Pictures that the next run asks for."""
        return self.wanted - self.there - self.captioned - self.refused


@dataclass
class _Work:
    """The pictures to ask for in one pool shard, and the answers so far."""

    shard: pool.Shard
    ids: dict[str, int]  # sample id → row
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    open: int = 0  # pictures without a result yet


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
    """Ask for all missing captions, at most `limit`, with `concurrency` calls at once.

    Covers every text-to-image picture; with `use` fill, only those without a caption of their own. A refused answer is
    recorded with its reason and not requested again; a missing answer is, and so is all of an endpoint that gave no
    caption yet. Errors: `UsageError` for an empty pool, and for an endpoint that refuses every call, gives no caption
    or does not answer.
    """
    if not workspace.batches():
        raise UsageError(f"the pool of {workspace.root} is empty: ingest a source first")
    folder = set_folder(workspace, use, kind, captioner.endpoint.model, captioner.version)
    result = Captioned()
    work = _missing(workspace, folder, use, limit, result)
    _Run(captioner, folder, {"kind": kind, "use": use}, result).all(work, concurrency, progress)
    if result.refused and not result.captioned + result.there:
        (reason, _), *_ = result.reasons.most_common(1)
        raise UsageError(f"all {result.refused} answers of {captioner.endpoint.model} are refused: {reason}")
    if result.unanswered and not result.captioned + result.refused:
        raise UsageError(
            f"none of {result.unanswered} pictures got an answer from {captioner.endpoint.url}: start the server, then"
            " run this again"
        )
    return result


def _missing(workspace: Workspace, folder: Path, use: str, limit: int | None, result: Captioned) -> list[_Work]:
    """Shards with pictures to ask for, each distinct picture once. Sets `wanted` and `there` of the result."""
    tables = (pq.read_table(readable(p), columns=["sample_id"]) for p in folder.glob("[!.]*.parquet"))
    done = {i for table in tables for i in table[0].to_pylist()}
    listed: set[str] = set()
    work, asked = [], 0
    for shard in pool.shards(workspace):
        table = pq.read_table(readable(shard.path), columns=["sample_id", "task", "caption"])
        ids: dict[str, int] = {}
        for row, (sample, task, caption) in enumerate(zip(*(c.to_pylist() for c in table.columns))):
            if task != "t2i" or sample in listed or (use == "fill" and not untold(caption)):
                continue
            listed.add(sample)
            result.wanted += 1
            result.there += sample in done
            if sample not in done and (limit is None or asked < limit):
                ids[sample] = row
                asked += 1
        if ids:
            work.append(_Work(shard, ids, open=len(ids)))
    return work


class _Run:
    """Collects the answers, and stops when the endpoint itself is at fault."""

    def __init__(self, captioner: Captioner, folder: Path, labels: dict[str, str], result: Captioned) -> None:
        self.captioner, self.folder, self.result = captioner, folder, result
        self.labels = labels | {"model": captioner.endpoint.model, "prompt": captioner.version}
        self.silent = 0  # calls in a row without an answer

    def all(self, work: list[_Work], concurrency: int, progress: Progress | None) -> None:
        """Ask for all pictures, `concurrency` at once; answers are written even if an error ends the run."""
        pictures = _pictures(work)
        running: dict[Future[dict[str, Any]], tuple[_Work, str]] = {}
        total = sum(len(w.ids) for w in work)
        with ThreadPoolExecutor(concurrency) as threads:
            try:
                while True:
                    for part, sample, image in islice(pictures, concurrency - len(running)):
                        running[threads.submit(self.captioner.ask, image)] = (part, sample)
                    if not running:
                        break
                    for call in wait(running, return_when=FIRST_COMPLETED).done:
                        self._take(*running.pop(call), call)
                    if progress:
                        answered = self.result.captioned + self.result.refused + self.result.unanswered
                        progress(answered, total, "pictures captioned")
            finally:
                for call in running:
                    call.cancel()
                for part in work if self.result.captioned + self.result.there else ():
                    self._write(part)  # where none has a caption, the endpoint is at fault: record no refusals

    def _take(self, work: _Work, sample: str, call: Future[dict[str, Any]]) -> None:
        row = self._row(call)
        if row is not None:
            work.rows[sample] = {"sample_id": sample} | self.labels | row
        work.open -= 1
        if not work.open and self.result.captioned:
            self._write(work)

    def _row(self, call: Future[dict[str, Any]]) -> dict[str, Any] | None:
        """Side-car row of a picture; None without an answer."""
        try:
            answer = call.result()
        except Refused as error:
            self.silent = 0
            self.result.refused += 1
            self.result.reasons[str(error)] += 1
            if not self.result.captioned and self.result.refused >= _IN_A_ROW:
                model = self.captioner.endpoint.model
                raise UsageError(f"the first {_IN_A_ROW} answers of {model} are refused: {error}") from error
            return {"error": str(error)}
        except Unanswered as error:
            self.result.unanswered += 1
            self.silent += 1
            if self.silent >= _IN_A_ROW:
                raise UsageError(
                    f"no answer from the endpoint ({error}): start the server, then run this again"
                ) from error
            return None
        self.silent = 0
        self.result.captioned += 1
        return answer | {"error": None}

    def _write(self, work: _Work) -> None:
        if work.rows:
            write_sidecar(self.folder, work.shard.key, [work.rows[i] for i in work.ids if i in work.rows])
            work.rows = {}


def _pictures(work: list[_Work]) -> Iterator[tuple[_Work, str, bytes]]:
    """Every picture to ask for; holds the pictures of one shard in memory at a time."""
    for part in work:
        images = pq.read_table(readable(part.shard.path), columns=["image"])["image"].take([*part.ids.values()])
        for sample, image in zip(part.ids, images):
            yield part, sample, image.as_py()
