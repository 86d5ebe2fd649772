"""Regular maintenance of a workspace: compact ledgers, export tables for analysts, verify everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flywheel.catalog import database as catalog
from flywheel.core.ledger import Ledger
from flywheel.core.schema import LEDGERS
from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck


def maintain(
    workspace: Workspace, *, keep_hours: int = 168, progress: Callable[..., None] | None = None
) -> dict[str, Any]:
    """Compact and vacuum every ledger, cache the fold of all cases, export the last round, verify every file.

    Safe beside readers and writers.

    keep_hours: age in hours after which replaced ledger files are deleted. Returns the files compacted and removed per
    ledger, the path of the export (None before the first round), and the report of `fsck`.
    """
    ledgers = {}
    for name in LEDGERS:
        ledger = Ledger(workspace, name)
        if ledger.exists():
            ledgers[name] = {"files": ledger.compact(), "removed": ledger.vacuum(hours=keep_hours)}
    report = fsck(workspace, progress=progress)
    return {
        "ledgers": ledgers,
        "export": (path := catalog.export_round(workspace)) and str(path),
        **report.as_dict(),
    }
