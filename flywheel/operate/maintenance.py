"""Regular maintenance of a workspace: compact ledgers, remove unlisted shards, export tables, verify everything."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from curation.shards.plan import listed
from flywheel.catalog import database as catalog
from flywheel.core.files import discard
from flywheel.core.ledger import Ledger
from flywheel.core.schema import LEDGERS
from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck
from flywheel.rounds.lease import running


def maintain(
    workspace: Workspace, *, keep_hours: int = 168, progress: Callable[..., None] | None = None
) -> dict[str, Any]:
    """Compact and vacuum every ledger, cache the fold of all cases, export the last round, verify every file.

    Safe beside readers and writers. Shard files that no snapshot lists are removed, except while a run is at work.

    keep_hours: age in hours after which replaced ledger files, and unlisted shard files, are deleted. Returns the files
    compacted and removed per ledger, the number of shard files removed, the path of the export (None before the first
    round), and the report of `fsck`.
    """
    ledgers = {}
    for name in LEDGERS:
        ledger = Ledger(workspace, name)
        if ledger.exists():
            ledgers[name] = {"files": ledger.compact(), "removed": ledger.vacuum(hours=keep_hours)}
    removed = _remove_unlisted(workspace, keep_hours) if running(workspace) is None else 0
    report = fsck(workspace, progress=progress)
    return {
        "ledgers": ledgers,
        "shard_files": removed,
        "export": (path := catalog.export_round(workspace)) and str(path),
        **report.as_dict(),
    }


def _remove_unlisted(workspace: Workspace, keep_hours: int) -> int:
    """Remove shard files that are so old and that no snapshot lists; returns how many."""
    folder = workspace.path("shards")
    kept, newest = listed(folder), time.time() - 3600 * keep_hours
    unlisted = [p for p in folder.glob("*/*.parquet") if f"{p.parent.name}/{p.name}" not in kept]
    old = [p for p in unlisted if p.stat().st_mtime <= newest]
    for path in old:
        discard(path)
    return len(old)
