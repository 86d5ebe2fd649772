"""Reinforcement learning on the demo world: hybrid guidance, guidance in the objective, and none, side by side.

python benchmarks/rl.py [--workspace DEMO | --checkpoint DIR] [--seeds 5] [--steps 60] [--arms hybrid objective none]

Every arm trains the round's first candidate on generated edits of the capability `identity`, held-out meanings left
out, with the weights that rl-tiny gives them: 1 for `instruction`, 0.5 for `consistency` (the subject, what was not to
change, and its colour). A fifth of the prompts is text-to-image, rewarded by `instruction` alone: without them what
edits do not need is forgotten. DiffusionNFT's loss, because it also trains the times at which details are drawn: GRPO's
window of high noise (--algorithm grpo) decides what is edited, and learns to edit less.
reward_headroom_gain: share of the head-room of the trained reward, the weighted mean of both, that is gained on the
held-out prompts of `identity`, drawn by the averaged weights; mean over seeds, with its 95 % interval (Student's t).
Each reward alone is printed too. The ceiling of `consistency` is under 1: pictures drawn right, through the
checkpoint's autoencoder, have 0.96.
All arms are drawn as a promoted checkpoint is, with guidance; `none`, which never saw any, is also drawn without.
fallen: verifiers whose mean change over seeds is below zero by more than its interval. A verifier that passes nowhere
at the start is not looked at again.
cpu_seconds_per_step: of training, roll-outs included.
Seeds may run side by side (--jobs). One seed takes 3 (none) to 6 (objective) CPU-minutes; --folder keeps the runs, and
goes on with them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

import torch

from benchmarks.demo_checkpoint import Passed, add_options, draw, interval, judge, open_start, rates
from flywheel.core.scorer import Item
from flywheel.remedies.prompts import write_prompts
from flywheel.remedies.rewards import Local
from flywheel.signals.suite import Prompt, load_suite
from training.rewards import Request
from training.rl.recipe import ALGORITHMS, RL_RECIPES, rl_recipe
from training.rl.trainer import train
from training.sampling import GUIDANCE, Sampler

CAPABILITY = "identity"
REWARDS = ("consistency", "instruction")
TRAINED = "trained reward"
PROMPTS = {CAPABILITY: 64, "object": 8, "count": 8}
ARMS = ("hybrid", "objective", "none")
DRAWN = {"hybrid": (GUIDANCE,), "objective": (GUIDANCE,), "none": (GUIDANCE, 1.0)}
"""Arm → the guidances that its outcome is drawn with."""
Outcome = tuple[Passed, dict[str, float]]
"""What passed, and the mean of each reward and of the trained one, their weighted mean."""


def train_arm(
    start: Path, suite: list[Prompt], prompts: list[Prompt], out: Path, arm: str, seed: int, steps: int, algorithm: str
) -> tuple[list[Outcome], float]:
    """Train one arm with one seed: its outcome by guidance, and CPU-seconds of a step."""
    torch.set_num_threads(1)
    recipe = rl_recipe(
        "rl-tiny",
        algorithm=algorithm,
        guidance=arm,
        steps=steps,
        sampling_steps=10,
        window=(0, 3),
        inner_steps=1,
        prompts=6,
        group=12,
        kl=0.01,
        lora_rank=0,
        learning_rate=2e-4,
        final_learning_rate=0.1,
        betas=(0.9, 0.99),
        clip=(2e-2, 2e-2),
        held_out=0,
        checkpoint_every=20,
    )
    checkpoint = train(out, prompts, [], recipe, Local(REWARDS), init=start, seed=seed)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    step_seconds = statistics.fmean(json.loads(line)["cpu_seconds"] for line in lines)
    return [outcome(Sampler(checkpoint), suite, cfg, seed) for cfg in DRAWN[arm]], step_seconds


def outcome(sampler: Sampler, suite: Sequence[Prompt], cfg: float, seed: int) -> Outcome:
    """Draw and judge the held-out suite."""
    pictures, _ = draw(sampler, suite, steps=20, cfg=cfg, seed=seed)
    requests = [
        Request(Item(picture, p.text, p.task, p.reference_bytes()), p.checks)
        for p, picture in zip(suite, pictures)
        if any(c["capability"] == CAPABILITY for c in p.checks)
    ]
    scores = Local(REWARDS).score(requests)
    means = {name: statistics.fmean(row[name] for row in scores) for name in REWARDS}
    weights = [RL_RECIPES["rl-tiny"].weight(CAPABILITY, name) for name in REWARDS]
    return judge(suite, pictures), means | {TRAINED: statistics.fmean(means.values(), weights)}


def main() -> None:
    """Print the table, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="RL steps of each run")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="nft")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--folder", type=Path, help="where runs are kept (default: a temporary one)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scratch = arguments.folder or Path(folder)
        start, suite = open_start(arguments, scratch, 1)
        exclude = frozenset(p.text for p in suite)
        prompts = []
        for name, count in PROMPTS.items():
            write_prompts(scratch / name / "prompts.jsonl", [name], count, seed=0, exclude=exclude)
            prompts += load_suite(scratch / name / "prompts.jsonl")
        sampler, guidances = Sampler(start), {cfg for arm in arguments.arms for cfg in DRAWN[arm]}
        before = {cfg: [outcome(sampler, suite, cfg, s) for s in range(arguments.seeds)] for cfg in guidances}
        first = [rates(passed) for outcomes in before.values() for passed, _ in outcomes]
        never = {k for k in first[0] if not any(r[k] for r in first)}
        watched = [p for p in suite if not {c["capability"] for c in p.checks} <= never]
        jobs = [(arm, seed) for arm in arguments.arms for seed in range(arguments.seeds)]
        with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
            futures = [
                pool.submit(
                    train_arm, start, watched, prompts, scratch / f"{a}-{s}", a, s, arguments.steps, arguments.algorithm
                )
                for a, s in jobs
            ]
            after = dict(zip(jobs, (f.result() for f in futures)))
    figures: dict[str, object] = {"seeds": arguments.seeds, "steps": arguments.steps}
    print(f"{'arm':<11}{'drawn':<11}{'verifier':<22}{'before':>8}{'after':>8}{'change':>9}{'±':>7}")
    for arm in arguments.arms:
        runs = [after[arm, seed] for seed in range(arguments.seeds)]
        prefix = "" if arm == "hybrid" else f"{arm}_"
        figures[f"{prefix}cpu_seconds_per_step"] = round(statistics.fmean(seconds for _, seconds in runs), 2)
        for i, cfg in enumerate(DRAWN[arm]):
            drawn = "guided" if cfg == GUIDANCE else "unguided"
            compared = compare(before[cfg], [outcomes[i] for outcomes, _ in runs], f"{arm:<11}{drawn:<11}")
            figures |= {f"{prefix}{'' if cfg == GUIDANCE else 'unguided_'}{name}": v for name, v in compared.items()}
    print(json.dumps(figures))


def compare(old: Sequence[Outcome], new: Sequence[Outcome], label: str) -> dict[str, object]:
    """Print a row for every verifier and reward, and return the figures; outcomes are by seed."""
    was, now = ([rates(passed) | means for passed, means in outcomes] for outcomes in (old, new))
    fallen, gains = [], {}
    for name in now[0]:
        change = [b[name] - a[name] for a, b in zip(was, now)]
        if statistics.fmean(change) < -interval(change):
            fallen.append(name)
        before, after = (statistics.fmean(row[name] for row in rows) for rows in (was, now))
        print(f"{label}{name:<22}{before:>8.1%}{after:>8.1%}{after - before:>+9.1%}{interval(change):>7.1%}")
        if name in (*REWARDS, TRAINED):
            gains[name] = [d / (1 - a[name]) for d, a in zip(change, was)]
    return {
        "reward_headroom_gain": round(statistics.fmean(gains[TRAINED]), 3),
        "reward_headroom_gain_interval": round(interval(gains[TRAINED]), 3) if len(old) > 1 else None,
        **{f"{name}_gain": round(statistics.fmean(gains[name]), 3) for name in REWARDS},
        "fallen": fallen,
    }


if __name__ == "__main__":
    main()
