"""Run in a process of its own: do a curation step, and die by SIGKILL at a stated point of it.

Usage: python -m tests.curation.killed WORKSPACE SOURCE (rename N | progress TEXT N)
`rename N`: just before the N-th rename of this process. `progress TEXT N`: at the N-th progress call that says TEXT.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def main(workspace: str, source: str, how: str, *where: str) -> None:
    from curation.policy.reader import load_policy
    from curation.run import curate
    from curation.sources.ingest import ingest
    from flywheel.core.workspace import Workspace

    opened = Workspace(workspace)
    if how == "rename":
        _die_at_rename(int(where[0]))
        ingest(opened, Path(source))
        return
    text, count = where[0], int(where[1])
    calls = 0

    def progress(done: int, total: int, note: str) -> None:
        nonlocal calls
        calls += note == text
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)

    ingest(opened, Path(source), progress=progress)
    curate(opened, load_policy("demo"), progress=progress)


def _die_at_rename(count: int) -> None:
    rename, renames = os.replace, 0

    def replace(*arguments: str) -> None:
        nonlocal renames
        renames += 1
        if renames == count:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*arguments)

    os.replace = replace


if __name__ == "__main__":
    main(*sys.argv[1:])
