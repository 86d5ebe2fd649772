"""Check that no file of a workspace holds an erased picture, or its id: by content, whatever the file's name."""

from __future__ import annotations

import hashlib
import re
import socket
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel.core.erased import banned, unfinished
from flywheel.core.exports import SHARDS, remembered
from flywheel.core.files import file_digest
from flywheel.core.storage import readable
from flywheel.operate.findings import ERROR, Check, Finding
from flywheel.operate.victims import loose_files, parquet_files

if TYPE_CHECKING:
    import pyarrow as pa

_IDS = ("sample_id", "image_id", "reference_ids")
_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def verify_erasures(check: Check) -> None:
    """No file holds an erased picture, an encoding of one, or the id of one: by content, whatever its name."""
    for journal in unfinished(check.workspace):
        path = check.workspace.path("erasures", f"{journal['id']}.json")
        check.fault(path, "the erasure was interrupted", "run `flywheel erase -w W`: it is completed")
    ids, blobs = banned(check.workspace)
    if not blobs:
        return
    again = "run `flywheel erase` for it again, or remove the file"
    for path in parquet_files(check.workspace):
        for found in _banned_cells(path, ids, blobs):
            check.fault(path, found, again)
    for path in loose_files(check.workspace):
        if path.parent.name == "erasures":
            continue
        check.opened()
        if file_digest(path) in blobs:
            check.fault(path, "is an erased picture", "remove the file")
        elif path.suffix in (".json", ".jsonl") and ids & set(
            _ID.findall(path.read_bytes().decode("utf-8", "replace"))
        ):
            check.fault(path, "names an erased picture", again)
    for place, host in remembered(check.workspace, SHARDS):
        if host == socket.gethostname() and place.is_dir():
            _exported(check, place, ids, blobs)


def _banned_cells(path: Path, ids: frozenset[str], blobs: frozenset[str]) -> list[str]:
    """What of erased pictures a Parquet file holds, a row group in memory at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: dict[str, int] = {}
    try:
        with pq.ParquetFile(readable(path)) as file:
            schema = file.schema_arrow
            columns = [f.name for f in schema if f.name in _IDS or _has_bytes(f.type)]
            for group in range(file.num_row_groups) if columns else ():
                table = file.read_row_group(group, columns=columns)
                for name in columns:
                    values, kind = table[name].combine_chunks(), schema.field(name).type
                    while pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
                        values = values.flatten()
                    if pa.types.is_struct(values.type):
                        values = values.field("bytes")
                    if name in _IDS and not _has_bytes(kind):
                        hits = sum(str(v).partition("/")[0] in ids for v in values.to_pylist() if v)
                    else:
                        hits = sum(hashlib.sha256(v.as_buffer()).hexdigest() in blobs for v in values if v.is_valid)
                    if hits:
                        found[name] = found.get(name, 0) + hits
    except (OSError, pa.ArrowException):
        return []  # another check reports it
    return [f"holds {count} erased pictures in its column {name}" for name, count in found.items()]


def _has_bytes(kind: pa.DataType) -> bool:
    """Whether cells of this type may hold pictures."""
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _has_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _exported(check: Check, folder: Path, ids: frozenset[str], blobs: frozenset[str]) -> None:
    """Check an export that was made here: pictures in its files, members of its archives, rows of its shards."""
    again = "run `flywheel erase` for it again, or remove the export"
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        check.opened()
        if path.suffix == ".parquet":
            problems = _banned_cells(path, ids, blobs)
        elif path.suffix == ".tar":
            with tarfile.open(path) as archive:
                contents = [(m.name, f.read()) for m in archive if (f := archive.extractfile(m))]
            problems = [f"holds an erased picture: {n}" for n, c in contents if hashlib.sha256(c).hexdigest() in blobs]
        elif path.suffix == ".mds":
            named = set(_ID.findall(path.read_bytes().decode("latin-1")))
            problems = ["names erased pictures"] if ids & named else []
        else:
            problems = ["is an erased picture"] if file_digest(path) in blobs else []
        for problem in problems:
            check.findings.append(Finding(ERROR, str(path), problem, again))
