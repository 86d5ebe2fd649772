"""Pictures that were erased: what no ingest takes again, and what no file of the workspace may hold.

The ledger `erasures` is the tombstone. `erasures/<id>.json` is an erasure's journal: it is written before anything is
removed and says what to remove, so that a killed erasure is completed by running it again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.files import read_json
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace

REASON = "erased: `flywheel erase` removed this picture, and it is not taken again"


def erased_images(workspace: Workspace) -> frozenset[str]:
    """SHA-256 of every picture that was erased."""
    return frozenset(_values(workspace, "image_id"))


def banned(workspace: Workspace) -> tuple[frozenset[str], frozenset[str]]:
    """(ids of erased pictures and samples, SHA-256 of everything made of them): no file may hold either."""
    ids = frozenset([*_values(workspace, "image_id"), *_values(workspace, "sample_ids")])
    return ids, frozenset([*_values(workspace, "image_id"), *_values(workspace, "blobs")])


def require_allowed(workspace: Workspace, *encodings: bytes) -> None:
    """Errors: `UsageError` if a picture, in one of these encodings, was erased."""
    _, gone = banned(workspace)
    if gone & {hashlib.sha256(data).hexdigest() for data in encodings}:
        raise UsageError("this picture was erased from this workspace, and is not taken again")


def journals(workspace: Workspace) -> list[Path]:
    """The journals of all erasures."""
    return sorted(workspace.path("erasures").glob("*.json"))


def unfinished(workspace: Workspace) -> list[dict[str, Any]]:
    """The journals of erasures that were interrupted."""
    return [j for j in map(read_json, journals(workspace)) if not j["finished"]]


def require_finished(workspace: Workspace) -> None:
    """Errors: `UsageError` if an erasure was interrupted: its pictures may still be there, and would be trained on."""
    if unfinished(workspace):
        raise UsageError(f"an erasure was interrupted: run `flywheel erase -w {workspace.root}` to complete it")


def _values(workspace: Workspace, column: str) -> list[str]:
    import pyarrow as pa

    values = Ledger(workspace, "erasures").table()[column].combine_chunks()
    flat = values.flatten() if pa.types.is_list(values.type) else values
    return flat.drop_null().to_pylist()
