"""What to export: rows of a stage and bucket, with captions of one kind, cut into parts of about equal size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.records import Manifest, ShardFile
from flywheel.core.schema import CAPTION_KINDS, ROW_GROUP
from flywheel.core.workspace import Workspace

FORMATS = ("webdataset", "hf", "imagefolder", "mds", "parquet")
CONDITION = "condition"  # the text that our own trainer conditions on: the primary caption
CAPTIONS = (CONDITION, *CAPTION_KINDS)


@dataclass(frozen=True)
class Request:
    """An export: equal requests of an unchanged snapshot write equal bytes.

    captions: `condition`, or the kind of caption that a picture must have; edits keep their instruction.
    part_bytes: pictures per file, about; part_rows: at most.
    """

    snapshot: str
    stage: str
    bucket: int
    format: str
    captions: str = CONDITION
    part_bytes: int = 512 * 2**20
    part_rows: int = 10_000

    @property
    def id(self) -> str:
        """16 hex digits."""
        return digest(asdict(self))[:16]


class Span(NamedTuple):
    """Row groups `first` … `last - 1` of a shard file; `path` is relative to the manifest's folder."""

    path: str
    first: int
    last: int


@dataclass(frozen=True)
class Part:
    """What one task writes: the row groups of a part, in order."""

    number: int
    spans: tuple[Span, ...]


def request(
    workspace: Workspace,
    *,
    format: str,
    snapshot: str | None,
    stage: str | None = None,
    bucket: int | None = None,
    captions: str = CONDITION,
    part_bytes: int = Request.part_bytes,
) -> tuple[Request, Manifest]:
    """The request and the manifest that it reads. stage: None: the last one with rows; bucket: None: its largest.

    Errors: `UsageError` that lists the choices.
    """
    if snapshot is None:
        raise UsageError("nothing has been curated in this workspace yet: run `flywheel curate` first")
    manifest = Manifest.read(workspace.shard_manifest(snapshot))
    stages = sorted({s for f in manifest.files for s in f.stages})
    if not stages:
        raise UsageError(f"snapshot {snapshot} has no shards: `flywheel funnel` shows which filters dropped its rows")
    stage = _one_of("--stage", stages, stage, stages[-1])
    buckets = sorted({f.bucket for f in manifest.files if stage in f.stages})
    bucket = int(_one_of("--bucket", buckets, bucket, buckets[-1]))
    _one_of("--format", FORMATS, format, "")
    _one_of("--captions", CAPTIONS, captions, "")
    return Request(snapshot, stage, bucket, format, captions, part_bytes), manifest


def _one_of(option: str, choices: Sequence[Any], value: Any, otherwise: Any) -> Any:
    if value is None:
        return otherwise
    if value not in choices:
        raise UsageError(f"{option} {value}: choose from {', '.join(map(str, choices))}")
    return value


def parts(wanted: Request, manifest: Manifest) -> Iterator[Part]:
    """The parts of an export, cut between row groups: what they are follows from the manifest alone."""
    spans: list[Span] = []
    rows = size = number = 0
    for file in chosen(wanted, manifest):
        first = 0
        groups = -(-file.rows // ROW_GROUP)
        for group in range(groups):
            here = min(ROW_GROUP, file.rows - group * ROW_GROUP)
            more = file.bytes * here // file.rows
            if rows and (size + more > wanted.part_bytes or rows + here > wanted.part_rows):
                if group > first:
                    spans.append(Span(file.path, first, group))
                yield Part(number, tuple(spans))
                spans, rows, size, number, first = [], 0, 0, number + 1, group
            rows, size = rows + here, size + more
        spans.append(Span(file.path, first, groups))
    if spans:
        yield Part(number, tuple(spans))


def chosen(wanted: Request, manifest: Manifest) -> list[ShardFile]:
    """The shard files that hold rows of the export."""
    return [f for f in manifest.files if wanted.stage in f.stages and f.bucket == wanted.bucket and f.rows]


def folder_of(workspace: Workspace, wanted: Request) -> Path:
    """Where the paths of spans start."""
    return workspace.shard_manifest(wanted.snapshot).parent
