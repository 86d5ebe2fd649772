"""Curating small pools in this process: a policy of one stage, files of few rows, and a count of encoded pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from curation import run
from curation.policy.policy import Policy
from curation.run import Curated, curate
from curation.scorers import scoring
from curation.shards import fit, plan, rows, writer
from curation.sources.ingest import ingest
from flywheel.core.records import Manifest
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture, write_folder
from tests.curation.one_stage import scored

AVERAGE = 8  # rows per file


class Serial:
    """What replaces Ray. encoded: pictures that were encoded; average: rows per file; where files end is random."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.encoded, self.average = 0, AVERAGE
        for module in (run, scoring, writer):
            patch.setattr(module, "cluster", lambda *_, **__: nullcontext())
        for module in (scoring, writer):
            patch.setattr(module, "run_all", _run_all)
        patch.setattr(plan, "average_rows", lambda pixels, far: self.average)
        patch.setattr(rows, "fit", self._fit)

    def _fit(self, *arguments: Any) -> bytes:
        self.encoded += 1
        return fit.fit(*arguments)


def _run_all(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    for number, call in enumerate(calls):
        yield number, function(*call)


def add(workspace: Workspace, folder: Path, numbers: Iterable[int]) -> None:
    """Ingest pictures of two layouts, by number, as a batch of its own."""
    files = {f"{n}.png": encoded(texture(n, 96, 96 if n % 3 else 64)) for n in numbers}
    ingest(workspace, write_folder(folder, files, {name: f"a picture called {name}" for name in files}))


def curated(workspace: Workspace, policy: Policy) -> Curated:
    """A new snapshot, scored in this process."""
    return curate(scored(workspace, policy), policy)


def files(result: Curated) -> dict[Path, tuple[int, bytes]]:
    """Shard files of a snapshot → (time of their last change, content)."""
    manifest = Path(result.manifest)
    paths = [manifest.parent / f.path for f in Manifest.read(manifest).files]
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in paths}
