"""Training as the pages show it: curves of any metric, read from the metrics files of the checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from flywheel.core.workspace import Workspace

POINTS = 80  # per curve: the noise of single steps would hide the trend

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """Loss of one arm over steps, averaged over equal spans of steps. `held_out` is empty if it was not measured."""

    arm: str
    loss: Points
    held_out: Points


def load_curves(workspace: Workspace, number: int) -> list[Curve]:
    """Curves of a round's candidate and control, as far as they exist."""
    out = []
    for arm in ("candidate", "control"):
        path = workspace.round(number).checkpoint(arm) / "metrics.jsonl"
        if path.exists():
            metrics = _metrics(path)
            out.append(Curve(arm, _thin(_series(metrics, "loss")), _thin(_series(metrics, "validation_loss"))))
    return [c for c in out if c.loss]


@dataclass(frozen=True)
class Run:
    """One metric of one training run over its steps; first, last and lowest are of the points as drawn.

    grid: workspace path of its sample grid, if there is one.
    """

    name: str
    points: Points  # as drawn
    first: float
    last: float
    lowest: float
    steps: int
    grid: str | None


def run_names(workspace: Workspace) -> list[str]:
    """Names of the checkpoint folders with metrics, latest round first, and of a round the candidate first.

    So its curve has the colour that the candidate has on other pages.
    """
    names = sorted(p.parent.name for p in workspace.path("checkpoints").glob("*/metrics.jsonl"))
    return sorted(names, key=lambda name: name.rpartition("-")[0], reverse=True)


def load_runs(workspace: Workspace, names: Sequence[str], metric: str) -> tuple[list[str], list[Run]]:
    """Names of all metrics that the runs record, and the runs that record `metric`. Unknown runs are left out."""
    known, recorded, runs = set(run_names(workspace)), set[str](), []
    for name in [n for n in names if n in known]:
        metrics = _metrics(workspace.path("checkpoints", name, "metrics.jsonl"))
        recorded |= {k for m in metrics for k, v in m.items() if isinstance(v, int | float) and k != "step"}
        if points := _series(metrics, metric):
            drawn = _thin(points)
            values = [y for _, y in drawn]
            grid = f"samples/{name}/grid.png"
            shown = grid if workspace.path(grid).exists() else None
            runs.append(Run(name, drawn, values[0], values[-1], min(values), int(points[-1][0]), shown))
    return sorted(recorded), runs


def chart(runs: Sequence[Run], metric: str) -> str:
    """Chart data for `charts.js`, as JSON: one line per run of this metric."""
    lines = [{"name": r.name, "points": [[x, float(f"{y:.5g}")] for x, y in r.points]} for r in runs]
    return json.dumps({"kind": "curves", "metric": metric.replace("_", " "), "lines": lines})


def grids(workspace: Workspace, number: int) -> list[tuple[str, str]]:
    """Arm and workspace path of each sample grid of a round."""
    grids = [(arm, workspace.round(number).samples(arm) / "grid.png") for arm in ("candidate", "control")]
    return [(arm, str(path.relative_to(workspace.root))) for arm, path in grids if path.exists()]


def _metrics(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def _series(metrics: list[dict[str, Any]], name: str) -> Points:
    pairs = ((m.get("step"), m.get(name)) for m in metrics)
    return [(float(x), float(y)) for x, y in pairs if x is not None and _is_number(y)]


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _thin(points: Points) -> Points:
    """Means of points over at most `POINTS` spans of equal size."""
    size = max(1, math.ceil(len(points) / POINTS))
    spans = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in s) / len(s), sum(y for _, y in s) / len(s)) for s in spans]
