"""Workspaces among sources: what Flywheel wrote is no source, least of all of the same workspace."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flywheel.core.errors import UsageError
from flywheel.core.hashes import MARKER


def is_workspace(folder: str) -> bool:
    """Whether Flywheel keeps its own files in a folder of this machine."""
    marker = os.path.join(folder, MARKER)
    return os.path.isfile(marker) and marks_workspace(Path(marker).read_bytes)


def marks_workspace(read: Callable[[], bytes]) -> bool:
    """Whether a file named like the marker of a workspace is one."""
    with suppress(OSError, ValueError):
        found = json.loads(read())
        return isinstance(found, dict) and set(found) == {"format"}
    return False


def no_source(workspace: str) -> UsageError:
    """What is said of a workspace that is given as a source."""
    return UsageError(
        f"source {workspace} is a workspace, with drawn and held-out pictures beside those of its pool: pass the folder"
        f" that its pictures came from, or {workspace.rstrip('/')}/pool"
    )
