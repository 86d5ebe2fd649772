"""User feedback: thumbs, reason, edited prompt, re-rolls. Each event becomes one signal, however often it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from flywheel.core.errors import UsageError
from flywheel.core.files import digest, file_digest, given_file, write_bytes
from flywheel.core.ledger import Ledger
from flywheel.core.lens import connect
from flywheel.core.lock import locked
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace

_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_AHEAD = timedelta(minutes=10)  # by which a sender's clock may be ahead


class Feedback(BaseModel):
    """One event. `rerolls`: how often the user asked for another image; `edited_prompt`: what they wrote instead.

    `references`: the pictures that an edit started from, as paths inside the workspace; without them, an edit whose
    prompt is not in the suite can be judged by a person only.
    """

    model_config = ConfigDict(extra="forbid")
    event_id: str = Field(min_length=1, max_length=200)
    prompt: str = Field(min_length=1, max_length=20_000)
    thumbs: Literal["up", "down"] | None = None
    reason: str = Field("", max_length=5_000)
    edited_prompt: str = Field("", max_length=20_000)
    rerolls: int = Field(0, ge=0, le=10_000)
    task: Literal["t2i", "ti2i"] = "t2i"
    prompt_id: str | None = Field(None, max_length=200)
    checkpoint: str | None = Field(None, max_length=1_000)
    image: str | None = Field(None, max_length=1_000)
    references: list[str] = Field(default_factory=list, max_length=16)
    at: datetime | None = None

    @field_validator("at")
    @classmethod
    def _plausible(cls, at: datetime | None) -> datetime | None:
        if at is not None:
            moment = at if at.tzinfo else at.replace(tzinfo=UTC)
            if moment < _EARLIEST or moment > datetime.now(UTC) + _AHEAD:
                raise ValueError(f"{at.isoformat()} is before {_EARLIEST.year} or in the future: check the clock")
        return at

    @field_validator("event_id", "prompt")
    @classmethod
    def _said(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("has nothing but spaces")
        return text

    @field_validator("references")
    @classmethod
    def _inside(cls, paths: list[str]) -> list[str]:
        if outside := [p for p in paths if PurePosixPath(p).is_absolute() or ".." in PurePosixPath(p).parts]:
            raise ValueError(f"{outside[0][:100]!r} is not a path inside the workspace")
        return paths

    @field_validator("image")
    @classmethod
    def _image_inside(cls, path: str | None) -> str | None:
        return None if path is None else cls._inside([path])[0]


@dataclass(frozen=True)
class Imported:
    """Events in = imported + duplicates + quarantined."""

    imported: int
    duplicates: int
    quarantined: int
    quarantine: str | None  # file that lists the quarantined events with their reasons


def signal_id(event_id: str) -> str:
    """Id of an event's signal, 32 hex digits."""
    return digest("feedback", event_id)[:32]


def prompt_id(task: str, prompt: str, references: Iterable[str]) -> str:
    """Id of a prompt that came from a user, with the workspace paths of its references."""
    return f"user-{digest(task, prompt, *references)[:16]}"


def signal(event: Feedback) -> dict[str, Any]:
    """The event as a signal: failed if thumbs down, or if edited or re-rolled without a thumb; passed if thumbs up."""
    unhappy = bool(event.edited_prompt.strip() or event.rerolls)
    passed = event.thumbs == "up" if event.thumbs else (False if unhappy else None)
    evidence = {
        k: v
        for k in ("event_id", "thumbs", "reason", "edited_prompt", "rerolls", "references")
        if (v := getattr(event, k)) not in (None, "", 0, [])
    }
    row = {
        "signal_id": signal_id(event.event_id),
        "kind": "feedback",
        "checkpoint": event.checkpoint,
        "prompt_id": event.prompt_id or prompt_id(event.task, event.prompt, event.references),
        "prompt": event.prompt,
        "task": event.task,
        "verifier": "user",
        "passed": passed,
        "score": {"up": 1.0, "down": 0.0}.get(event.thumbs or ""),
        "evidence": json.dumps(evidence, ensure_ascii=False),
        "image": event.image,
    }
    return row | ({"at": event.at} if event.at and event.at.tzinfo else {})


def record(workspace: Workspace, events: Iterable[Feedback], *, key: str) -> tuple[int, int]:
    """Append the events that are not in the ledger yet, once per key; returns (recorded, duplicates)."""
    ledger = Ledger(workspace, "signals")
    with one_at_a_time(workspace):
        if ledger.has(key):
            return 0, 0
        known = known_ids(workspace)
        rows: dict[str, dict[str, Any]] = {}
        total = 0
        for event in events:
            total += 1
            row = signal(event)
            if row["signal_id"] not in known:
                rows.setdefault(row["signal_id"], row)
        ledger.append(list(rows.values()), key=key)
    return len(rows), total - len(rows)


def known_ids(workspace: Workspace, kind: str = "feedback") -> set[str]:
    """Ids of all signals of a kind in the ledger, except those of rounds."""
    with closing(connect(workspace, ["signals"])) as con:
        ids = "SELECT signal_id FROM signals WHERE kind = ? AND round IS NULL"
        return {r[0] for r in con.execute(ids, [kind]).fetchall()}


def import_file(workspace: Workspace, path: Path) -> Imported:
    """Import a JSON Lines or Parquet file of events. Invalid rows are quarantined, each with its reason.

    Errors: `UsageError` if the file cannot be read.
    """
    path = given_file(path, "a JSON Lines or Parquet file, one feedback event per row")
    events, bad = [], []
    for number, row in enumerate(read_rows(path), 1):
        try:
            events.append(Feedback.model_validate_json(row) if isinstance(row, str) else Feedback.model_validate(row))
        except ValidationError as error:
            bad.append({"row": number, "reason": why(error), "content": row if isinstance(row, str) else repr(row)})
    name = file_digest(path)
    imported, _ = record(workspace, events, key=f"feedback/import/{name}")
    return Imported(imported, len(events) - imported, len(bad), write_quarantine(workspace, name, bad))


def write_quarantine(workspace: Workspace, name: str, bad: list[dict[str, Any]]) -> str | None:
    """Write the rows that could not be used, with their reasons; returns the file, or None without such rows."""
    if not bad:
        return None
    path = workspace.path("feedback", "quarantine", f"{name[:32]}.jsonl")
    write_bytes(path, "".join(json.dumps(b, ensure_ascii=False) + "\n" for b in bad).encode())
    return str(path)


def read_rows(path: Path) -> Iterator[str | Mapping[str, Any]]:
    """Lines of a JSON Lines file, or rows of a Parquet file without null values. Errors: `UsageError`."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            for batch in pq.ParquetFile(readable(path)).iter_batches():
                for row in batch.to_pylist():
                    yield {k: v for k, v in row.items() if v is not None}
        except pa.ArrowException as error:
            raise UsageError(f"{path} cannot be read as Parquet: {error}") from error
        return
    with path.open(encoding="utf-8-sig", errors="replace") as f:
        for line in f:
            if line.strip():
                yield line


def why(error: ValidationError) -> str:
    """The first error of an event, in one sentence."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or "event"
    return f"{where}: {first['msg']}"


@contextmanager
def one_at_a_time(workspace: Workspace) -> Iterator[None]:
    """Let one process at a time compare with the ledger and append, so that each event counts once."""
    with locked(workspace.path(".signals.lock")):
        yield
