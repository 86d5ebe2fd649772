"""The inbox: files that other systems drop into a workspace, each imported once, whatever it is named.

`inbox/feedback` holds user feedback, `inbox/judgements` what models judged of their own samples, `inbox/battles` arena
votes; JSON lines or Parquet. Judgements of `flywheel signals judge` and the log of a stopped feedback server count too.
A file stays where it is: the ledger knows which contents it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.mirror import fetched
from flywheel.core.workspace import Workspace
from flywheel.signals import feedback_log
from flywheel.signals.arena import import_battles
from flywheel.signals.feedback import import_file
from flywheel.signals.mining import Mining, mine_file

Import = Callable[[Path], dict[str, Any]]


def collect(workspace: Workspace, *, model: str | None = None) -> list[dict[str, Any]]:
    """Import what is new; returns a row per source: {source, signals, duplicates, quarantined, error}.

    model: ours, in battles: what it lost becomes a signal. A file that cannot be read costs itself: its `error` says
    why, the others are imported.
    """
    rows = [_row("feedback server's log", signals=feedback_log.fold(workspace))]
    for path, import_ in _files(workspace, model):
        name = str(path.relative_to(workspace.root))
        try:
            rows.append(_row(name, **import_(fetched(path))))
        except UsageError as error:
            rows.append(_row(name, error=str(error)))
    return rows


def _files(workspace: Workspace, model: str | None) -> Iterator[tuple[Path, Import]]:
    def feedback(path: Path) -> dict[str, Any]:
        found = import_file(workspace, path)
        return {"signals": found.imported, "duplicates": found.duplicates, "quarantined": found.quarantined}

    def battles(path: Path) -> dict[str, Any]:
        found = import_battles(workspace, path, model=model)
        return {"signals": found.imported, "duplicates": found.duplicates, "quarantined": found.quarantined}

    def judgements(path: Path) -> dict[str, Any]:
        return {"signals": sum(mine_file(workspace, path, Mining()).values())}

    kinds = {"inbox/feedback": feedback, "inbox/battles": battles, "inbox/judgements": judgements}
    for folder, import_ in {**kinds, "judgements": judgements}.items():
        for path in sorted(workspace.path(folder).glob("[!.]*")):
            yield path, import_


def _row(source: str, **found: Any) -> dict[str, Any]:
    return {"source": source, "signals": 0, "duplicates": 0, "quarantined": 0, "error": None, **found}
