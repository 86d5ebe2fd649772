"""Check that no file of a workspace holds an erased picture, or its id: by content, whatever the file's name."""

from __future__ import annotations

import hashlib
import re
import socket
import tarfile
from pathlib import Path

from flywheel.core.erased import banned, unfinished
from flywheel.core.exports import SHARDS, remembered
from flywheel.core.files import file_digest
from flywheel.operate.content import banned_cells
from flywheel.operate.findings import ERROR, Check, Finding
from flywheel.operate.victims import loose_files, parquet_files

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
        for found in banned_cells(path, ids, blobs):
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


def _exported(check: Check, folder: Path, ids: frozenset[str], blobs: frozenset[str]) -> None:
    """Check an export that was made here: pictures in its files, members of its archives, rows of its shards."""
    again = "run `flywheel erase` for it again, or remove the export"
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        check.opened()
        if path.suffix == ".parquet":
            problems = banned_cells(path, ids, blobs)
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
