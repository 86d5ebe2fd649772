"""What a step of RL says of itself: its rewards, what is wrong with them, and its update. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from training.losses.grpo import Advantages

CONSTANT = 1e-12  # standard deviation below which rewards are the same


def reward_line(
    names: Sequence[str], values_PGR: Tensor, advantages: Advantages, weights_PR: Tensor, factors: Sequence[float]
) -> dict[str, Any]:
    """The rewards' part of a step's metrics; factors: of each reward's weight, held in `weights_PR` already."""
    line: dict[str, Any] = {"rewards": {}}
    for i, name in enumerate(names):
        scored = _scored(values_PGR[:, :, i])
        line["rewards"][name] = {
            "mean": float(scored.mean()) if len(scored) else None,
            "std": float(scored.std(correction=0)) if len(scored) else None,
            "weight": float(weights_PR[:, i].mean()),
            "factor": factors[i],
            "groups": int(advantages.used[:, i].sum()),
            "unscored": int(values_PGR[:, :, i].isnan().sum()),
        }
    return line | {"groups": len(values_PGR), "flat_groups": int((~advantages.kept).sum())}


def faults(names: Sequence[str], values_PGR: Tensor, broken: Mapping[str, int]) -> list[str]:
    """A sentence for each reward that cannot be learnt from; broken: scores that were not finite, by reward."""
    said = [f"{count} scores of reward {name} are not finite: not counted" for name, count in broken.items()]
    for i, name in enumerate(names):
        scored, count = _scored(values_PGR[:, :, i]), values_PGR[:, :, i].numel()
        if not len(scored):
            said.append(f"reward {name} is not a number for any of all {count} pictures")
        elif float(scored.std(correction=0)) < CONSTANT:
            said.append(f"reward {name} is the same, {float(scored[0]):g}, for all {count} pictures")
    return said


def update_line(
    ratios: Tensor, first_ratios: Tensor, gaps: Tensor, kls: Tensor, *, clip: tuple[float, float]
) -> dict[str, float]:
    """The update's part of a step's metrics, from values per row [N]; first_ratios: before the first update."""
    below, above = clip
    return {
        "ratio_mean": float(ratios.mean()),
        "ratio_max": float(ratios.max()),
        "ratio_first": float((first_ratios - 1).abs().max()),  # 0 up to rounding
        "clipped_below": float((ratios < 1 - below).float().mean()),
        "clipped_above": float((ratios > 1 + above).float().mean()),
        "guided_gap": float(gaps.mean()),
        "kl": float(kls.mean()),
    }


def _scored(values: Tensor) -> Tensor:
    """The numbers among [P, G] values."""
    return values[~values.isnan()]
