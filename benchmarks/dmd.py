"""A four-step student without guidance against its teacher at 40 steps with guidance, on the demo's held-out suite.

python benchmarks/dmd.py [--workspace DEMO | --checkpoint DIR] [--steps 300] [--teacher-steps 40] [--seeds 5]

dmd_pass_share: the student's pass rate over the teacher's, every check of a prompt counted.
dmd_cpu_speedup: CPU-seconds of sampling the suite from every seed, the teacher's over the student's: conditions, each
prompt's text read once by either, and decoding included. dmd_cpu_speedup_read: of the seeds after the first, when the
texts are known: what is left is denoising, references and decoding.
margin_over_teacher_4: pass rate of the student minus that of the teacher at four steps with guidance, which takes twice
the student's passes; margin_over_teacher_4_passes: the same for the better of two ways to spend the student's passes.
Intervals (95 %) are over prompts, each the mean over seeds.
failures_gone: share of the failures of the teacher at four steps that the student does not have.
--steps is the number of student updates; the teacher is the round's checkpoint, prompts are generated, held-out
meanings left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

import torch

from benchmarks.demo_checkpoint import Passed, add_options, draw, interval, judge, open_start, passes, rates
from flywheel.remedies.prompts import write_prompts
from flywheel.signals.suite import Prompt, load_suite
from training.dmd.recipe import dmd_recipe
from training.dmd.trainer import train
from training.sampling import Sampler

CAPABILITIES = ("object", "count", "typography", "identity")

Arm = tuple[Path, int | None, float | None]
"""(checkpoint, sampling steps, guidance); None: the checkpoint's own."""


def main() -> None:
    """Print the table, then the figures as one JSON line."""
    arguments = parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        teacher, suite = open_start(arguments, scratch, arguments.round)
        exclude = frozenset(p.text for p in suite)
        write_prompts(scratch / "p" / "prompts.jsonl", CAPABILITIES, 96, seed=0, exclude=exclude)
        prompts = load_suite(scratch / "p" / "prompts.jsonl")
        recipe = dmd_recipe("dmd-tiny", steps=arguments.steps, t2i_share=arguments.t2i_share)
        student = train(arguments.student or scratch / "student", prompts, recipe, init=teacher)
        arms: dict[str, Arm] = {
            "teacher": (teacher, arguments.teacher_steps, 3.0),
            "student": (student.path, None, None),
            "teacher_4": (teacher, 4, 3.0),
            "teacher_4_unguided": (teacher, 4, 1.0),
            "teacher_2": (teacher, 2, 3.0),
        }
        samplers = {name: Sampler(checkpoint) for name, (checkpoint, _, _) in arms.items()}
        results, cpu_seconds = measure(arms, samplers, suite, arguments.seeds)
        print_table(arms, samplers, results, cpu_seconds)
    print(json.dumps(figures(results, cpu_seconds, arguments, len(suite))))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--round", type=int, default=2, help="round whose candidate is the teacher")
    parser.add_argument("--student", type=Path, help="folder of the student's run; it is resumed and kept")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--teacher-steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5, help="sampling seeds of the evaluation")
    parser.add_argument("--t2i-share", type=float, default=0.5)
    return parser.parse_args()


def measure(
    arms: Mapping[str, Arm], samplers: Mapping[str, Sampler], suite: Sequence[Prompt], seeds: int
) -> tuple[dict[str, list[Passed]], dict[str, list[float]]]:
    """(what passed, CPU-seconds of sampling) of each arm and seed."""
    results: dict[str, list[Passed]] = {name: [] for name in arms}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in arms}
    for name, (_, _, cfg) in arms.items():  # a warm-up: the first call pays for more than pictures
        draw(samplers[name], suite[:1], steps=1, cfg=cfg, seed=99)
    for seed in range(seeds):
        for name, (_, steps, cfg) in arms.items():  # in turns, so that other load of the machine slows all alike
            pictures, seconds = draw(samplers[name], suite, steps=steps, cfg=cfg, seed=seed)
            results[name].append(judge(suite, pictures))
            cpu_seconds[name].append(seconds)
    return results, cpu_seconds


def print_table(
    arms: Mapping[str, Arm],
    samplers: Mapping[str, Sampler],
    results: Mapping[str, Sequence[Passed]],
    cpu_seconds: Mapping[str, Sequence[float]],
) -> None:
    """Print a row for each arm."""
    print(f"{'':<20}{'steps':>6}{'CFG':>5}{'passes':>7}{'passed':>8}{'±':>6}{'CPU s':>8}  by capability")
    for name, (_, arm_steps, arm_cfg) in arms.items():
        steps, cfg = len(samplers[name].times(arm_steps, 1)) - 1, samplers[name].guidance(arm_cfg)
        mean, each = by_prompt(results[name]), [rates(p) for p in results[name]]
        levels = ", ".join(f"{k} {statistics.fmean(r[k] for r in each):.0%}" for k in each[0])
        rate, half = statistics.fmean(mean.values()), interval([*mean.values()])
        print(f"{name:<20}{steps:>6}{cfg:>5.3g}{steps * (1 + (cfg != 1)):>7}{rate:>8.1%}{half:>6.1%}", end="")
        print(f"{sum(cpu_seconds[name]):>8.2f}  {levels}", flush=True)


def figures(
    results: Mapping[str, Sequence[Passed]],
    cpu_seconds: Mapping[str, Sequence[float]],
    arguments: argparse.Namespace,
    prompts: int,
) -> dict[str, Any]:
    """The figures of the JSON line."""
    rate = {name: statistics.fmean(by_prompt(runs).values()) for name, runs in results.items()}
    rivals = ("teacher_4_unguided", "teacher_2")
    teacher, student = cpu_seconds["teacher"], cpu_seconds["student"]
    return {
        "dmd_pass_share": round(rate["student"] / rate["teacher"], 3),
        "dmd_cpu_speedup": round(sum(teacher) / sum(student), 1),
        "dmd_cpu_speedup_read": round(sum(teacher[1:]) / sum(student[1:]), 1) if arguments.seeds > 1 else None,
        **{f"{name}_pass_rate": round(value, 3) for name, value in rate.items()},
        **margin("margin_over_teacher", results["student"], results["teacher"]),
        **margin("margin_over_teacher_4", results["student"], results["teacher_4"]),
        **margin("margin_over_teacher_4_passes", results["student"], results[max(rivals, key=rate.__getitem__)]),
        "failures_gone": round(1 - (1 - rate["student"]) / (1 - rate["teacher_4"]), 3)
        if rate["teacher_4"] < 1
        else None,
        "student_updates": arguments.steps,
        "prompts_judged": prompts * arguments.seeds,
    }


def by_prompt(runs: Sequence[Passed]) -> dict[str, float]:
    """Share of the seeds from which each prompt passes every check."""
    each = [passes(passed) for passed in runs]
    return {prompt: statistics.fmean(e[prompt] for e in each) for prompt in each[0]}


def margin(name: str, ours: Sequence[Passed], theirs: Sequence[Passed]) -> dict[str, float]:
    """Mean difference over prompts, and its interval."""
    a, b = by_prompt(ours), by_prompt(theirs)
    differences = [a[prompt] - b[prompt] for prompt in a]
    return {name: round(statistics.fmean(differences), 3), f"{name}_interval": round(interval(differences), 3)}


if __name__ == "__main__":
    main()
