"""The inbox: files that other systems put into a workspace, each imported once by its content, whatever its name.

`inbox/feedback` holds user feedback, `inbox/judgements` judgements that models made of their own samples,
`inbox/battles` arena votes; all as JSON Lines or Parquet. Judgements of `flywheel signals judge` and the log of a
stopped feedback server are imported too. Files stay where they are: the ledger records which contents were imported.
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
from flywheel.signals.feedback import Imported, import_file
from flywheel.signals.mining import Mining, mine_file

Import = Callable[[Path], dict[str, Any]]


def collect(workspace: Workspace, *, model: str | None = None) -> list[dict[str, Any]]:
    """Import new files; returns a row per source: {source, signals, duplicates, quarantined, error}.

    model: name of our model in battles; those that it lost become signals. A file that cannot be read has its reason in
    `error`; the others are imported.
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
        return _counts(import_file(workspace, path))

    def battles(path: Path) -> dict[str, Any]:
        return _counts(import_battles(workspace, path, model=model))

    def judgements(path: Path) -> dict[str, Any]:
        return {"signals": sum(mine_file(workspace, path, Mining()).values())}

    kinds = {"inbox/feedback": feedback, "inbox/battles": battles, "inbox/judgements": judgements}
    for folder, import_ in {**kinds, "judgements": judgements}.items():
        for path in sorted(workspace.path(folder).glob("[!.]*")):
            yield path, import_


def _counts(result: Imported) -> dict[str, Any]:
    return {"signals": result.imported, "duplicates": result.duplicates, "quarantined": result.quarantined}


def _row(source: str, **values: Any) -> dict[str, Any]:
    return {"source": source, "signals": 0, "duplicates": 0, "quarantined": 0, "error": None, **values}
