"""CPU time of one stochastic step with its log-probability, ours against flow_grpo's formula.

python benchmarks/grpo_step.py [--repeats 30]

grpo_step_cpu_ms: noise, step and fp32 log-prob of 16 latents of 16 × 64 × 64, one thread, median.
peer_step_cpu_ms: the same by the formula of flow_grpo's sde_step_with_logprob, written anew, as its package is in no
registry: every coefficient as a tensor, the mean, the sample, then each term of the density over all elements.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

import torch
from torch import Tensor

from training.losses.grpo import sde_step, standard_log_prob

SHAPE, T, FOLLOWING, LEVEL = (16, 16, 64, 64), 0.9, 0.85, 0.7


def ours(x: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
    """(x', log-prob)."""
    step = sde_step(torch.full((len(x),), T), torch.full((len(x),), FOLLOWING), LEVEL)
    noise = torch.randn(SHAPE)
    return step.sample(x, velocity, noise), standard_log_prob(step, noise)


def peer(x: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
    """(x', log-prob) as flow_grpo computes them."""
    x, velocity = x.float(), velocity.float()
    t = torch.full((len(x), 1, 1, 1), T)
    dt = torch.full((len(x), 1, 1, 1), FOLLOWING) - t
    sigma = torch.sqrt(t / (1 - t)) * LEVEL
    mean = x * (1 + sigma**2 / (2 * t) * dt) + velocity * (1 + sigma**2 * (1 - t) / (2 * t)) * dt
    moved = mean + sigma * torch.sqrt(-1 * dt) * torch.randn(SHAPE)
    density = (
        -((moved.detach() - mean) ** 2) / (2 * ((sigma * torch.sqrt(-1 * dt)) ** 2))
        - torch.log(sigma * torch.sqrt(-1 * dt))
        - torch.log(torch.sqrt(2 * torch.as_tensor(math.pi)))
    )
    return moved, density.mean(dim=(1, 2, 3))


def cost(function: Callable[[Tensor, Tensor], object], repeats: int) -> float:
    """Median CPU milliseconds of a call."""
    x, velocity = torch.randn(SHAPE), torch.randn(SHAPE)
    took = []
    for _ in range(repeats + 3):
        began = time.process_time()
        function(x, velocity)
        took.append(1000 * (time.process_time() - began))
    return statistics.median(took[3:])


def main() -> None:
    """Print the figures, the last line as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    with torch.no_grad():
        torch.manual_seed(0)
        a = ours(x := torch.randn(SHAPE), v := torch.randn(SHAPE))
        torch.manual_seed(0)
        torch.randn(SHAPE), torch.randn(SHAPE)
        b = peer(x, v)
        difference = max(float((p - q).abs().max()) for p, q in zip(a, b, strict=True))
        figures = {
            "grpo_step_cpu_ms": round(cost(ours, repeats), 2),
            "peer_step_cpu_ms": round(cost(peer, repeats), 2),
            "largest_difference": difference,
        }
    for name, value in figures.items():
        print(f"{name:<20}{value:>12.3g}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
