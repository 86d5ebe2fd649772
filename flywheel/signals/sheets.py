"""Suites drawn and judged: here, or by several processes at once, each with a generator of its own, as on several GPUs.

The pictures are the same for any number of processes: whole batches go to them, as they are drawn here one by one.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from flywheel.core.cluster import Needs, cluster, run_all
from flywheel.core.generator import Generator, Undrawn
from flywheel.core.storage import located
from flywheel.core.workspace import Workspace
from flywheel.presets import Evaluation
from flywheel.signals.drawing import OnProgress, batched, sample_suite
from flywheel.signals.judging import Verifiers, judge_images
from flywheel.signals.suite import Prompt

if TYPE_CHECKING:
    from curation.verify.checks import Outcome

Judged: TypeAlias = "tuple[Undrawn | None, list[Outcome]]"  # why a prompt has no picture; the outcomes of its checks
_NEEDS = Needs(cpus=1.0, gpus=1.0)  # of a process that draws; no GPU where the cluster has none


@dataclass(frozen=True)
class Sheet:
    """One picture for each prompt of a suite, from one seed, in one folder.

    shown: the prompts as they are drawn; suite: the same prompts as they are judged.
    """

    shown: Sequence[Prompt]
    suite: Sequence[Prompt]
    folder: Path
    seed: int


@dataclass(frozen=True)
class Workers:
    """Processes that draw and judge.

    opens: returns the generator of a process, and can be pickled; count: of processes, None: as many as the cluster
    has room for.
    """

    opens: Callable[[], Generator]
    count: int | None


def draw_and_judge(
    sheets: Sequence[Sheet],
    generator: Generator,
    *,
    workspace: Workspace,
    settings: Evaluation,
    workers: Workers | None = None,
    progress: OnProgress | None = None,
) -> Iterator[list[Judged]]:
    """Yield, for each sheet in order, what became of each of its prompts, in order.

    workers: where to draw, in place of this process. Pictures that a sheet's folder has already are not drawn again.
    Errors: `UsageError` of the generator, or of verifiers that the settings name and that cannot be loaded.
    """
    if workers:
        yield from _by_workers(sheets, workers, workspace, settings, progress)
        return
    by, total = Verifiers.of(workspace, settings), sum(len(s.shown) for s in sheets)
    before = 0
    for sheet in sheets:
        yield _here(sheet, generator, by, settings, progress and _part(progress, before, total))
        before += len(sheet.shown)


def _here(
    sheet: Sheet, generator: Generator, by: Verifiers, settings: Evaluation, progress: OnProgress | None = None
) -> list[Judged]:
    pictures = sample_suite(sheet.shown, generator, sheet.folder, settings=settings, seed=sheet.seed, progress=progress)
    judged = judge_images(sheet.suite, pictures, by=by)
    return [(p if isinstance(p, Undrawn) else None, outcomes) for p, outcomes in zip(pictures, judged, strict=True)]


def _part(progress: OnProgress, before: int, total: int) -> OnProgress:
    return lambda done, _, note: progress(before + done, total, note)


def _by_workers(
    sheets: Sequence[Sheet],
    workers: Workers,
    workspace: Workspace,
    settings: Evaluation,
    progress: OnProgress | None,
) -> Iterator[list[Judged]]:
    parts = _longest_first(sheets)
    found: list[dict[int, Judged]] = [{} for _ in sheets]
    shared = (pickle.dumps(workers.opens), str(workspace.root), json.dumps(asdict(settings)))
    calls = ((*shared, *_arguments(sheets[n], places)) for n, places in parts)
    done, total = 0, sum(len(s.shown) for s in sheets)
    with cluster(workers.count or 1, few=workers.count is not None):
        for index, result in run_all(_in_worker, calls, needs=lambda _: _NEEDS):
            if isinstance(result, Exception):
                raise result
            number, places = parts[index]
            found[number] |= dict(zip(places, result, strict=True))
            done += len(places)
            if progress:
                progress(done, total, "images")
    for sheet, judged in zip(sheets, found):
        yield [judged[place] for place in range(len(sheet.shown))]


def _longest_first(sheets: Sequence[Sheet]) -> list[tuple[int, list[int]]]:
    """(number of a sheet, places of its prompts that are drawn together): small parts last, so that no worker waits."""
    parts = [(n, places) for n, sheet in enumerate(sheets) for places in batched(sheet.shown)]
    return sorted(parts, key=lambda part: -sum(1 + len(sheets[part[0]].shown[i].references) for i in part[1]))


def _arguments(sheet: Sheet, places: Sequence[int]) -> tuple[list[Prompt], list[Prompt], str, int]:
    return [sheet.shown[i] for i in places], [sheet.suite[i] for i in places], str(sheet.folder), sheet.seed


def _in_worker(
    opens: bytes, root: str, settings: str, shown: list[Prompt], suite: list[Prompt], folder: str, seed: int
) -> list[Judged]:
    generator, by, how = _opened(opens, root, settings)
    return _here(Sheet(shown, suite, located(folder), seed), generator, by, how)


@lru_cache(maxsize=1)
def _opened(opens: bytes, root: str, settings: str) -> tuple[Generator, Verifiers, Evaluation]:
    """Generator and verifiers, opened once per process."""
    how = Evaluation(**json.loads(settings))
    return pickle.loads(opens)(), Verifiers.of(Workspace(root, create=False), how), how
