"""Training as the pages show it: loss curves per arm, read from the checkpoints' metrics."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from flywheel.workspace import Workspace

POINTS = 80  # per curve: the noise of single steps hides the course

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """Loss over steps of one arm, averaged over equal spans of steps. `held_out` is empty where none was measured."""

    arm: str
    loss: Points
    held_out: Points


def load_curves(workspace: Workspace, number: int) -> list[Curve]:
    """Curves of a round's candidate and control, where they exist."""
    out = []
    for arm in ("candidate", "control"):
        path = workspace.path("checkpoints", f"round-{number:04d}-{arm}", "metrics.jsonl")
        if path.exists():
            found = _metrics(path)
            out.append(Curve(arm, _thin(_series(found, "loss")), _thin(_series(found, "val_loss"))))
    return [c for c in out if c.loss]


def grids(workspace: Workspace, number: int) -> list[tuple[str, str]]:
    """Arm and workspace path of each sample grid of a round."""
    names = [(arm, f"samples/round-{number:04d}-{arm}/grid.png") for arm in ("candidate", "control")]
    return [(arm, name) for arm, name in names if workspace.path(name).exists()]


def _metrics(path: Path) -> list[dict]:
    lines = path.read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def _series(metrics: list[dict], name: str) -> Points:
    found = ((m.get("step"), m.get(name)) for m in metrics)
    return [(float(x), float(y)) for x, y in found if x is not None and y is not None and math.isfinite(y)]


def _thin(points: Points) -> Points:
    """Means over at most `POINTS` equal spans of the rows."""
    size = max(1, math.ceil(len(points) / POINTS))
    spans = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in s) / len(s), sum(y for _, y in s) / len(s)) for s in spans]
