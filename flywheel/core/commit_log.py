"""Commits of a ledger as files: their names, which is the newest, and whether one is whole.

A commit holds one JSON object a line. The first line of ours states how many follow, which tells a whole commit from
its beginning: what a power cut, or on some file systems a kill, may leave.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flywheel.core.storage import remote

LOG = "_delta_log"
PREVIOUS = "previous"  # in a commit: version and SHA-256 of the one before it
_FOLLOWING = "following"  # in a commit: number of its lines behind the first
_FIRST = ("protocol", "metaData")  # what the first commit of a table holds, each in a line


def name(version: int, kind: str = "json") -> str:
    """Path of a commit, or of Delta's summary of all up to it, below the ledger's folder."""
    return f"{LOG}/{version:020d}.{kind}"


def newest(ledger: Path) -> int | None:
    """Version of the newest commit in a ledger's folder, whole or not; None if there is none."""
    found = (int(p.stem) for p in (ledger / LOG).glob("*.json") if p.stem.isdecimal())
    return max(found, default=None)


def stated(previous: str, following: Sequence[Any]) -> dict[str, str]:
    """What the first line of a commit states. previous: version and hash of the one before. following: its actions."""
    return {PREVIOUS: previous, _FOLLOWING: str(len(following))}


def whole(commit: bytes, version: int) -> bool:
    """Whether every line of a commit is an action, and none is missing. Earlier versions stated no number of them."""
    try:
        lines = [json.loads(line) for line in commit.splitlines()]
    except (ValueError, RecursionError):
        return False
    if not all(isinstance(line, dict) for line in lines):
        return False
    about = (line["commitInfo"] for line in lines if isinstance(line.get("commitInfo"), dict))
    following = {str(len(lines) - 1) if (n := info.get(_FOLLOWING)) is None else n for info in about}
    named = {action for line in lines for action in line}
    return bool(named) and following <= {str(len(lines) - 1)} and named.issuperset(_FIRST if version == 0 else ())


def sync(ledger: Path, *names: str) -> None:
    """Wait until files of a ledger's folder on this machine are on the disk; those that are missing do not count."""
    for path in () if remote(ledger) else filter(Path.exists, (ledger / name for name in names)):
        with path.open("rb") as file:
            os.fsync(file.fileno())
