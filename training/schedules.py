"""Time grids of sampling: from 1 (noise) to 0, float64 [steps + 1]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flywheel.core.errors import UsageError

SCHEDULES = ("uniform", "dynamic_shift")
SHIFT = (0.5, 0.9)  # of the open 2.1 scheduler: µ at 256 and at 8192 target tokens, linear between and beyond
TOKENS = (256, 8192)
TERMINAL = 0.02  # the last time before 0


def uniform(steps: int) -> np.ndarray:
    """Evenly spaced. Errors: `UsageError` for fewer than one step."""
    if steps < 1:
        raise UsageError(f"{steps} sampling steps: use at least 1")
    return np.linspace(1.0, 0.0, steps + 1)


def dynamic_shift(steps: int, tokens: int) -> np.ndarray:
    """The open 2.1 release's: more steps at high noise, increasingly so with more target tokens.

    t → e^µ / (e^µ + 1/t − 1), then stretched so that the last time before 0 is 0.02; a single step goes from 1 to 0.
    """
    times = uniform(steps)[:-1]
    slope = (SHIFT[1] - SHIFT[0]) / (TOKENS[1] - TOKENS[0])
    strength = np.exp(SHIFT[0] + slope * (tokens - TOKENS[0]))
    shifted = strength / (strength + 1 / times - 1)
    if steps > 1:
        shifted = 1 - (1 - shifted) * (1 - TERMINAL) / (1 - shifted[-1])
    return np.append(shifted, 0.0)


def own(times: Sequence[float]) -> np.ndarray:
    """A model's own grid, such as a distilled student's; the final 0 may be omitted. Errors: `UsageError`."""
    grid = np.asarray(times, dtype=np.float64)
    if grid.ndim != 1 or not len(grid) or not np.isfinite(grid).all():
        raise UsageError(f"sigmas {list(times)} are not a time grid: give numbers that fall from 1 towards 0")
    grid = grid if grid[-1] == 0 else np.append(grid, 0.0)
    if len(grid) < 2 or grid[0] > 1 or (np.diff(grid) >= 0).any():
        raise UsageError(f"sigmas {list(times)} are not a time grid: give numbers that fall from 1 towards 0")
    return grid


def times(schedule: str, steps: int, tokens: int) -> np.ndarray:
    """The grid of a schedule by name. Errors: `UsageError` for unknown names."""
    if schedule not in SCHEDULES:
        raise UsageError(f"unknown schedule {schedule!r}: use one of {', '.join(SCHEDULES)}")
    return uniform(steps) if schedule == "uniform" else dynamic_shift(steps, tokens)
