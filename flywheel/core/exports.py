"""Where exports of a workspace were made: erasing a picture has to reach them."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flywheel.core.files import digest
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace

SHARDS, TABLES = "shards", "tables"


def remember(workspace: Workspace, kind: str, place: Path, request: Mapping[str, Any]) -> None:
    """Record an export before anything of it is written. kind: `shards`, a folder, or `tables`, a DuckDB file."""
    where = {"kind": kind, "place": workspace.relative(place.absolute()), "host": socket.gethostname()}
    name = digest(where, request)[:16]
    row = where | {"export_id": name, "request": json.dumps(request, sort_keys=True, ensure_ascii=False)}
    Ledger(workspace, "exports").append([row], key=f"export/{name}")


def remembered(workspace: Workspace, kind: str) -> list[tuple[Path, str]]:
    """(place, host) of every export of this kind, each once, in the order in which they were begun."""
    rows = [r for r in Ledger(workspace, "exports").rows() if r["kind"] == kind]
    return list(dict.fromkeys((workspace.path(r["place"]), r["host"]) for r in rows))
