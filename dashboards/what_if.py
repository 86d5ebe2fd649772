"""What-if sliders: the thresholds of the latest snapshot's policy, and what other values would admit.

Reads only scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from curation.policy import sql
from curation.policy.policy import Policy
from curation.policy.what_if import Basis, basis, parse_settings, what_if, with_settings
from curation.run import configure
from curation.scorers.table import tables
from dashboards import scores
from flywheel.core.lens import latest_snapshot
from flywheel.core.storage import read_parquet
from flywheel.core.workspace import Workspace

BINS = 40  # of a histogram
Span = tuple[str, float, float]  # a score, and the ends of a range of it


@dataclass(frozen=True)
class Slider:
    """One threshold: its path and value in the policy, and the range of its score in the pool.

    reads: the score; means: what it measures, with its unit. bins: rows of the pool in equal parts of that range.
    """

    path: str
    stage: str
    filter: str
    bound: str  # min | max
    reads: str
    means: str
    value: float
    low: float
    high: float
    bins: tuple[int, ...]


def sliders(workspace: Workspace, base: Basis) -> list[Slider]:
    """A slider for each threshold whose score was computed, in the order filters are applied."""
    ranges, files = _ranges(workspace, base)
    found: list[tuple[str, str, str, str, float, Span]] = []
    for stage in base.policy.stages:
        for line in stage.filters:
            for bound in ("min", "max"):
                value = getattr(line, bound)
                if line.score in ranges and value is not None:
                    low, high = (float(f(value, end)) for f, end in zip((min, max), ranges[line.score]))
                    found.append((stage.name, line.name, bound, line.score, value, (line.score, low, high)))
    means = scores.meanings()
    counts = _bins(workspace, files, list(dict.fromkeys(span for *_, span in found)))
    return [
        Slider(
            f"{stage}.{name}.{bound}", stage, name, bound, reads, means.get(reads, ""), value, *span[1:], counts[span]
        )
        for stage, name, bound, reads, value, span in found
    ]


def answer(workspace: Workspace, base: Basis, thresholds: Mapping[str, str]) -> dict[str, Any]:
    """What `thresholds` (path → number) would change; the policy's own values change nothing.

    Errors: `UsageError` for an invalid path or number.
    """
    settings = parse_settings(f"{path}={number}" for path, number in thresholds.items())
    return what_if(workspace, base, with_settings(base.policy, changed(base.policy, settings)))


def changed(policy: Policy, settings: Mapping[str, float]) -> dict[str, float]:
    """The settings that differ from the policy. Errors: `UsageError` for a path that is not in it."""
    return {path: value for path, value in settings.items() if policy.number(path) != value}


def current(workspace: Workspace) -> Basis | None:
    """The policy and evaluation of the latest snapshot; None before the first."""
    snapshot = latest_snapshot(workspace)
    return _basis(workspace, snapshot) if snapshot else None


@lru_cache(maxsize=8)
def _basis(workspace: Workspace, snapshot: str) -> Basis:
    return basis(workspace, snapshot)  # a snapshot never changes


def _ranges(workspace: Workspace, base: Basis) -> tuple[dict[str, tuple[float, float]], list[Path]]:
    """Lowest and highest value of each score that has a threshold, and the files with the scores."""
    scorers, _ = configure(base.policy)
    known = {f"{s.name}.{f.name}" for s in scorers.values() for f in s.fields}
    wanted = sorted({f.score for s in base.policy.stages for f in s.filters if f.score in known})
    files = tables(workspace, scorers)
    if not wanted or not files:
        return {}, files
    ends = ", ".join(f'min("{w}")::DOUBLE, max("{w}")::DOUBLE' for w in wanted)
    with sql.connect(workspace) as con:
        bounds = con.execute(f"SELECT {ends} FROM {read_parquet(map(str, files))}").fetchall()[0]
    pairs = zip(bounds[::2], bounds[1::2])
    return {name: pair for name, pair in zip(wanted, pairs) if None not in pair}, files


def _bins(workspace: Workspace, files: Sequence[Path], spans: Sequence[Span]) -> dict[Span, tuple[int, ...]]:
    """Rows by equal parts of each span, all in one pass; rows without a score are in none."""
    if not spans:
        return {}
    counted = ", ".join(
        f'histogram(try_cast(least({BINS - 1}, floor(("{score}"::DOUBLE - {low!r}) / {high - low or 1.0!r} * {BINS}))'
        " AS INTEGER))"
        for score, low, high in spans
    )
    with sql.connect(workspace) as con:
        found = con.execute(f"SELECT {counted} FROM {read_parquet(map(str, files))}").fetchall()[0]
    return {span: tuple((of or {}).get(n, 0) for n in range(BINS)) for span, of in zip(spans, found)}
