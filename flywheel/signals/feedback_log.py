"""The write-ahead log of feedback: an event is acknowledged once its line is on disk; one fsync serves many lines.

Segments are `feedback/log/*.jsonl`. A running server holds a lock on its own segment. Segments without a lock, left by
a killed server, are folded into the ledger under a key of their name and removed. A last line without a line end was
never acknowledged. For a workspace on S3 the segments are in the local copy, so restart a killed server on the same
machine.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from flywheel.core import hashes
from flywheel.core.files import discard, write_bytes
from flywheel.core.mirror import mirror
from flywheel.core.workspace import Workspace
from flywheel.signals.feedback import Feedback, known_ids, record, signal_id, why


class Segment:
    """An append-only file that only this process writes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{time.time_ns():020d}-{os.getpid()}.jsonl"
        hashes.note(self.path, hashes.LIVING)
        self._file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o644)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        directory = os.open(folder, os.O_RDONLY)
        os.fsync(directory)  # the name reaches the disk before any event does
        os.close(directory)
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append and sync. On failure the file is unchanged."""
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(data)

    def close(self) -> None:
        """Release the segment for folding."""
        os.close(self._file)


class FeedbackLog:
    """Accepts events, syncs them in groups, folds full segments into the ledger."""

    def __init__(self, workspace: Workspace, *, segment_bytes: int = 4 << 20, fold_seconds: float = 10.0) -> None:
        self.workspace = workspace
        self.segment_bytes = segment_bytes
        self.fold_seconds = fold_seconds
        fold(workspace)  # segments that a killed server left
        self.known = known_ids(workspace)
        self.folder = mirror(workspace.path("feedback", "log"))
        self.segment = Segment(self.folder)
        self._pending: dict[str, asyncio.Future[None]] = {}
        self._lines: list[tuple[str, bytes]] = []
        self._wake = asyncio.Event()

    async def append(self, events: Sequence[Feedback]) -> int:
        """Wait until all events are on disk; returns how many were new. Copies sent at the same time count once."""
        waits, new = [], 0
        for event in events:
            key = signal_id(event.event_id)
            if key in self.known:
                continue
            if key not in self._pending:
                new += 1
                self._pending[key] = asyncio.get_running_loop().create_future()
                self._lines.append((key, event.model_dump_json(exclude_defaults=True).encode() + b"\n"))
            waits.append(self._pending[key])
        self._wake.set()
        if waits:
            await asyncio.gather(*waits)
        return new

    async def run(self) -> None:
        """Write events in groups until cancelled."""
        folding: asyncio.Task[None] | None = None
        opened = time.monotonic()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self.fold_seconds)
            self._wake.clear()
            await self._commit()
            full = self.segment.size >= self.segment_bytes or time.monotonic() - opened > self.fold_seconds
            if full and self.segment.size and (folding is None or folding.done()):
                self.segment.close()
                self.segment, opened = Segment(self.folder), time.monotonic()
                folding = asyncio.create_task(self._fold())

    async def _fold(self) -> None:
        try:
            await asyncio.to_thread(fold, self.workspace)
        except Exception:  # the events are safe in the log; keep serving clients
            logging.getLogger(__name__).exception("feedback could not be folded into the ledger; it stays in the log")

    async def _commit(self) -> None:
        lines, self._lines = self._lines, []
        if not lines:
            return
        error: OSError | None = None
        try:
            await asyncio.to_thread(self.segment.write, b"".join(line for _, line in lines))
        except OSError as caught:
            error = caught
        for key, _ in lines:
            future = self._pending.pop(key)
            if error:
                future.set_exception(error)
            else:
                self.known.add(key)
                future.set_result(None)

    def close(self) -> None:
        """Fold the last segment."""
        self.segment.close()
        fold(self.workspace)


def fold(workspace: Workspace) -> int:
    """Move every segment without a running server into the ledger, each once; returns the number of new signals."""
    recorded = 0
    for path in sorted(mirror(workspace.path("feedback", "log")).glob("*.jsonl")):
        with open(path, "rb") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its server is running
            events, bad = [], []
            for line in f.read().split(b"\n")[:-1]:
                try:
                    events.append(Feedback.model_validate_json(line))
                except ValidationError as error:
                    bad.append(why(error).encode() + b": " + line)
            if bad:
                write_bytes(workspace.path("feedback", "quarantine", path.name), b"\n".join(bad) + b"\n")
            recorded += record(workspace, events, key=f"feedback/log/{path.stem}")[0]
            discard(path)
    return recorded
