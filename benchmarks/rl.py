"""Reinforcement learning on the demo world: hybrid guidance, guidance in the objective, and none, side by side.

python benchmarks/rl.py [--workspace DEMO | --checkpoint DIR] [--seeds 5] [--steps 80] [--arms hybrid objective none]

Every arm trains the round's first candidate on the shape of single cards (`instruction` over the object check), the
least learned capability that succeeds now and then; prompts are generated, held-out meanings and those that the start
always passes left out.
reward_headroom_gain: share of the head-room (1 − reward at the start) that the reward gains on held-out prompts, drawn
by the averaged weights as they are deployed; mean over seeds, with its 95 % interval (Student's t).
fallen: other verifiers whose mean change over seeds is below zero by more than its interval. A verifier that passes
nowhere at the start is not looked at again.
Seeds may run side by side (--jobs). One seed of one arm takes about 3 CPU-minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

import torch

from benchmarks.demo_checkpoint import Passed, add_options, evaluate, interval, open_start, passes, rates
from flywheel.remedies.prompts import write_prompts
from flywheel.remedies.rewards import Local
from flywheel.signals.suite import Prompt, load_suite
from training.rl.recipe import rl_recipe
from training.rl.trainer import train
from training.sampling import Sampler

TRAINED = "object"
ARMS = ("hybrid", "objective", "none")
CFG = {"hybrid": 3.0, "objective": 3.0, "none": 1.0}
STEPS = 6  # of a roll-out
PROMPTS = 288  # generated, before those that always pass are left out


def one(start: Path, suite: list[Prompt], prompts: list[Prompt], out: Path, arm: str, seed: int, steps: int) -> Passed:
    """Train one arm with one seed, and judge it."""
    torch.set_num_threads(1)
    recipe = rl_recipe(
        "rl-tiny",
        guidance=arm,
        steps=steps,
        weights={"*": {"instruction": 1.0}},
        sampling_steps=STEPS,
        window=(0, 3),
        inner_steps=1,
        prompts=4,
        group=12,
        kl=0.0,
        lora_rank=0,
        learning_rate=1.5e-4,
        betas=(0.9, 0.99),
        clip=(2e-2, 2e-2),
        held_out=0,
        checkpoint_every=steps,
    )
    made = train(out, prompts, [], recipe, Local(("instruction",)), init=start, seed=seed)
    return evaluate(Sampler(made), suite, steps=20, cfg=CFG[arm], seed=seed)[0]


def rl_cases(sampler: Sampler, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts, with the trained check alone, that do not pass from each of two seeds: the others teach nothing."""
    alone = [replace(p, checks=tuple(c for c in p.checks if c["capability"] == TRAINED)) for p in prompts]
    seen = [passes(evaluate(sampler, alone, steps=STEPS, cfg=3.0, seed=1000 + s)[0]) for s in range(2)]
    return [p for p in alone if not all(passed[p.prompt_id] for passed in seen)]


def main() -> None:
    """Print the table, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=80, help="RL steps of each run")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        start, suite = open_start(arguments, scratch, 1)
        exclude = frozenset(p.text for p in suite)
        write_prompts(scratch / "p" / "prompts.jsonl", [TRAINED], PROMPTS, seed=0, exclude=exclude)
        sampler, before = Sampler(start), {}
        prompts = rl_cases(sampler, load_suite(scratch / "p" / "prompts.jsonl"))
        print(f"{len(prompts)} of {PROMPTS} generated prompts are RL cases of the start", flush=True)
        for cfg in {CFG[a] for a in arguments.arms}:
            before[cfg] = [evaluate(sampler, suite, steps=20, cfg=cfg, seed=s)[0] for s in range(arguments.seeds)]
        never = {k for seen in zip(*before.values()) for k in seen[0] if not any(rates(b)[k] for b in seen)}
        watched = [p for p in suite if not {c["capability"] for c in p.checks} <= never]
        jobs = [(arm, seed) for arm in arguments.arms for seed in range(arguments.seeds)]
        with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
            futures = [
                pool.submit(one, start, watched, prompts, scratch / f"{a}-{s}", a, s, arguments.steps) for a, s in jobs
            ]
            after = dict(zip(jobs, (f.result() for f in futures)))
    figures: dict[str, object] = {"seeds": arguments.seeds, "steps": arguments.steps}
    print(f"{'arm':<11}{'verifier':<13}{'before':>8}{'after':>8}{'change':>9}{'±':>7}")
    for arm in arguments.arms:
        old = [rates(b) for b in before[CFG[arm]]]
        new = [rates(after[arm, seed]) for seed in range(arguments.seeds)]
        fallen = []
        for name in sorted(new[0]):
            change = [n[name] - o[name] for n, o in zip(new, old)]
            half = interval(change)
            if name != TRAINED and statistics.fmean(change) < -half:
                fallen.append(name)
            levels = (statistics.fmean(r[name] for r in rows) for rows in (old, new))
            print(f"{arm:<11}{name:<13}{''.join(f'{v:>8.1%}' for v in levels)}", end="")
            print(f"{statistics.fmean(change):>+9.1%}{half:>7.1%}" + ("  trained" if name == TRAINED else ""))
        gains = [(n[TRAINED] - o[TRAINED]) / (1 - o[TRAINED]) for n, o in zip(new, old) if o[TRAINED] < 1]
        prefix = "" if arm == "hybrid" else f"{arm}_"
        figures |= {
            f"{prefix}reward_headroom_gain": round(statistics.fmean(gains), 3) if gains else None,
            f"{prefix}reward_headroom_gain_interval": round(interval(gains), 3) if len(gains) > 1 else None,
            f"{prefix}fallen": fallen,
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
