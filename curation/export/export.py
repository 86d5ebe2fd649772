"""Write an export: part by part, then its index, metadata and card; `export.json` last, which marks it as finished.

Run again after a kill, it writes the parts that are missing. Unfinished work is in the hidden folder `.export`.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curation.export import card, croissant
from curation.export.exported import Exported
from curation.export.formats import FORMATS, PartFile, files_of
from curation.export.request import Part, Request, Span, chosen, folder_of, parts
from curation.export.rows import Tally, samples
from flywheel.core.errors import UsageError
from flywheel.core.exports import SHARDS, remember
from flywheel.core.files import file_digest, read_json, write_bytes, write_json
from flywheel.core.records import Manifest
from flywheel.core.workspace import Workspace

RECORD = "export.json"
_WORK = ".export"

Progress = Callable[[int, int, str], None]


def export_shards(
    workspace: Workspace, wanted: Request, manifest: Manifest, folder: Path, progress: Progress | None = None
) -> Exported:
    """Write `folder`, or complete it. Memory: one row group of a shard.

    Errors: `UsageError` if the folder holds anything else, such as an export of another request.
    """
    folder = folder.absolute()
    _require_free(folder, wanted)
    remember(workspace, SHARDS, folder, asdict(wanted))
    planned, references = claim(folder, wanted, manifest)
    work = folder / _WORK
    source, written = folder_of(workspace, wanted), 0
    for done, part in enumerate(planned, 1):
        if not _record(work, part).exists():
            _write_part(folder, work, source, wanted, part, references)
            written += 1
        if progress:
            progress(done, len(planned), "parts written")
    records = [read_json(_record(work, p)) for p in planned]
    if not sum(r["rows"] for r in records):
        _clear(folder, planned)
        raise UsageError(
            f"no row of {wanted.stage} at {wanted.bucket} has a caption of kind {wanted.captions}: choose another with "
            "--captions, or write them with `flywheel caption`"
        )
    files = [PartFile(**f, rows=r["rows"]) for r in records for f in r["files"]]
    form = FORMATS[wanted.format]
    form.index(folder, files, references)
    exported = Exported(
        folder=str(folder),
        request=wanted,
        rows=sum(r["rows"] for r in records),
        bytes=sum(f.bytes for f in files),
        left_out=sum(r["left_out"] for r in records),
        parts=len(planned),
        licences=_summed([r["licences"] for r in records]),
        tasks=_summed([r["tasks"] for r in records]),
        written=written,
    )
    described = [f for f in files if Path(f.path).match(form.glob)]
    write_json(folder / "croissant.json", croissant.metadata(exported, described))
    write_bytes(folder / "README.md", card.text(exported, workspace).encode())
    value = asdict(exported) | {"id": wanted.id, "parts": records, "references": references}
    write_json(folder / RECORD, {k: v for k, v in value.items() if k not in ("folder", "written")})
    shutil.rmtree(work)
    return exported


def claim(folder: Path, wanted: Request, manifest: Manifest) -> tuple[list[Part], int]:
    """Make the folder one of this request; returns its parts and the most references of a row, as planned at first.

    Errors: `UsageError` if it holds anything else.
    """
    _require_free(folder, wanted)
    begun, finished = folder / _WORK / "request.json", folder / RECORD
    if begun.exists():
        plan = read_json(begun)
    elif finished.exists():
        plan = _reopened(folder)
    else:
        spans = [p.spans for p in parts(wanted, manifest)]
        references = max((f.references for f in chosen(wanted, manifest)), default=0)
        plan = {"id": wanted.id, "request": asdict(wanted), "parts": spans, "references": references}
        write_json(begun, plan)
    cut = [Part(n, tuple(Span(*span) for span in spans)) for n, spans in enumerate(plan["parts"])]
    return cut, plan["references"]


def _require_free(folder: Path, wanted: Request) -> None:
    """Errors: `UsageError` unless the folder is new, empty or of this export; a refused one is not remembered."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file: pass a new or an empty folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {folder} cannot be made ({error.strerror}): pass another folder") from error
    known = next((read_json(p) for p in (folder / RECORD, folder / _WORK / "request.json") if p.exists()), None)
    if known is None:
        if any(folder.iterdir()):
            raise UsageError(f"--output {folder} holds other files: pass a new or an empty folder")
    elif known["id"] != wanted.id:
        raise UsageError(
            f"--output {folder} holds another export ({_told(known['request'])}): pass a new folder, or those options"
        )


def again(workspace: Workspace, folder: Path, changed: Collection[str], progress: Progress | None = None) -> int:
    """Write the parts of an export again that read one of the changed shard files; returns how many.

    changed: workspace paths of shard files. A folder that holds no export any more, or no such part, is left alone.
    """
    begun, finished = folder / _WORK / "request.json", folder / RECORD
    if not begun.exists() and not finished.exists():
        return 0
    plan = read_json(begun) if begun.exists() else _reopened(folder)
    wanted = Request(**plan["request"])
    places = {workspace.relative(folder_of(workspace, wanted) / span[0]) for part in plan["parts"] for span in part}
    if not places & set(changed):
        if finished.exists():
            shutil.rmtree(folder / _WORK)
        return 0
    finished.unlink(missing_ok=True)
    for number, spans in enumerate(plan["parts"]):
        if any(workspace.relative(folder_of(workspace, wanted) / span[0]) in changed for span in spans):
            _forget(folder, number)
    manifest = Manifest.read(workspace.shard_manifest(wanted.snapshot))
    return export_shards(workspace, wanted, manifest, folder, progress).written


def _forget(folder: Path, number: int) -> None:
    """Remove what was written of a part, finished or not."""
    record = folder / _WORK / f"{number:05d}.json"
    for file in read_json(record)["files"] if record.exists() else ():
        (folder / file["path"]).unlink(missing_ok=True)
    record.unlink(missing_ok=True)
    shutil.rmtree(folder / _WORK / f"{number:05d}", ignore_errors=True)
    shutil.rmtree(folder / "train" / f"{number:05d}", ignore_errors=True)


def _clear(folder: Path, planned: Sequence[Part]) -> None:
    """Remove an export without rows, so that another one may take the folder."""
    for part in planned:
        _forget(folder, part.number)
    for name in ("README.md", "croissant.json", "index.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / _WORK)
    for place in (folder / "data", folder / "train"):
        with suppress(OSError):  # not there, or not ours
            place.rmdir()


def _reopened(folder: Path) -> dict[str, Any]:
    """The plan of a finished export, after its parts are listed as unfinished work again."""
    record = read_json(folder / RECORD)
    for part in record["parts"]:
        write_json(folder / _WORK / f"{part['part']:05d}.json", part)
    plan = {"id": record["id"], "request": record["request"], "references": record["references"]}
    plan["parts"] = [part["spans"] for part in record["parts"]]
    write_json(folder / _WORK / "request.json", plan)
    return plan


def _told(request: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in request.items() if not k.startswith("part_"))


def _record(work: Path, part: Part) -> Path:
    return work / f"{part.number:05d}.json"


def _write_part(folder: Path, work: Path, source: Path, wanted: Request, part: Part, references: int) -> None:
    """Write a part beside the finished ones, move its files to their places, and record it."""
    tally, fresh = Tally(), work / f"{part.number:05d}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    rows = samples(source, part, wanted.captions, tally)
    FORMATS[wanted.format].write(fresh, part.number, rows, references)
    files = []
    for path in files_of(fresh):
        name = path.relative_to(fresh).as_posix()
        files.append({"path": name, "bytes": path.stat().st_size, "sha256": file_digest(path)})
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)
    shutil.rmtree(fresh)
    spans = [list(s) for s in part.spans]
    counts = {k: dict(v) if isinstance(v, Counter) else v for k, v in vars(tally).items()}
    write_json(_record(work, part), {"part": part.number, "spans": spans, "files": files, **counts})


def _summed(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in counts:
        total.update(part)
    return dict(sorted(total.items()))
