"""What a workspace needs now and then: ledgers in few files, an export for analysts, a check of everything."""

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
    """Compact and vacuum every ledger, keep the fold of all cases, export the last round, verify everything.

    Safe beside readers and writers.

    keep_hours: age from which replaced ledger files are removed. Returns files compacted and removed per ledger, the
    export's path (None before the first round) and what `fsck` found.
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
