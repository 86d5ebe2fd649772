"""The workspace's own suite: pinned by hash when it is made, and checked whenever it is read.

`suite.json` at the root of the workspace lists every file of the folder `suite` with its hash. Without this a lost list
of held-out rows would let them train, and a changed check would compare rounds that were judged differently.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel.core import hashes
from flywheel.core.errors import UsageError
from flywheel.core.files import file_digest, read_json, write_json
from flywheel.core.storage import located
from flywheel.core.workspace import Workspace
from flywheel.signals.suite import Prompt, load_suite

if TYPE_CHECKING:
    from curation.decide.judging import HeldOut

_REASON = "the evaluation of all rounds rests on it, and without it held-out pictures would train"


def pin(workspace: Workspace) -> None:
    """Pin the suite as it is now. Does nothing if one is pinned."""
    record, folder = _record(workspace), workspace.suite.parent
    if is_pinned(workspace):
        return
    files = sorted(
        p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".") and hashes.FOLDER not in p.parts
    )
    write_json(record, {"files": {p.relative_to(folder).as_posix(): file_digest(p) for p in files}})


def is_pinned(workspace: Workspace) -> bool:
    """Whether the workspace has a suite that can no longer change. Errors: `UsageError` if its pin is lost."""
    record = _record(workspace)
    if record.exists():
        return True
    # A pin is recorded before it appears, so that a killed first run has a record without a pin, but no plan yet.
    if workspace.round(1).plan.exists():
        entry = hashes.read(workspace.root).newest.get(record.name)
        if entry and entry.kind == hashes.FILE:
            raise UsageError(f"{record} is missing: restore it from a copy; {_REASON}")
    return False


def require_unchanged(workspace: Workspace) -> None:
    """Errors: `UsageError` if a pinned file of the suite is missing or changed."""
    if not is_pinned(workspace):
        return
    for name, sha256 in read_json(_record(workspace))["files"].items():
        path = workspace.suite.parent / name
        if not path.is_file():
            raise UsageError(f"{path} is missing: restore it from a copy; {_REASON}")
        if file_digest(path) != sha256:
            raise UsageError(f"{path} is not what it was when the suite was made: restore it from a copy; {_REASON}")


def load_own(workspace: Workspace) -> list[Prompt]:
    """The workspace's suite; none before it is made. Errors: `UsageError` if it is not the pinned one."""
    require_unchanged(workspace)
    return load_suite(workspace.suite) if workspace.suite.exists() else []


def load_any(path: Path) -> list[Prompt]:
    """A suite file; that of a workspace must be the pinned one. Errors: `UsageError`."""
    path = located(path).resolve()
    root = path.parent.parent
    if (root / "workspace.json").is_file() and (workspace := Workspace(root, create=False)).suite == path:
        require_unchanged(workspace)
    return load_suite(path)


def write_held_out(workspace: Workspace, ids: Iterable[str] = (), references: Iterable[bytes] = ()) -> None:
    """Add to what no shard may have: rows with one of the ids of samples or images, and what looks like a reference."""
    from curation.decide.judging import HeldOut, Look
    from curation.scorers import load
    from flywheel.core.scorer import Item

    scores = load("pixels").score([Item(picture) for picture in references])
    looks = frozenset(Look(s["phash"], s["thumbnail"]) for s in scores if isinstance(s, dict))
    known = held_out(workspace)
    write_json(workspace.held_out, HeldOut(known.ids | frozenset(ids), looks=known.looks | looks).record())


def held_out(workspace: Workspace) -> HeldOut:
    """What `write_held_out` wrote; nothing before. Errors: `UsageError` if it is not the pinned list."""
    from curation.decide.judging import HeldOut

    require_unchanged(workspace)
    record = read_json(workspace.held_out) if workspace.held_out.exists() else []
    # Earlier versions wrote only a list of ids.
    return HeldOut(frozenset(record)) if isinstance(record, list) else HeldOut.from_record(record)


def _record(workspace: Workspace) -> Path:
    return workspace.path("suite.json")
