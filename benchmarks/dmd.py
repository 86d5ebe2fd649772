"""A four-step student without guidance against its teacher at 40 steps with guidance, on the demo's held-out suite.

python benchmarks/dmd.py [--workspace DEMO | --checkpoint DIR] [--steps 60] [--teacher-steps 40] [--seeds 1]

dmd_pass_share: the student's pass rate over the teacher's, every check of a prompt counted.
dmd_cpu_speedup: CPU-seconds of sampling the suite, conditions and decoding included, the teacher's over the student's.
teacher_4_pass_rate: the teacher at the student's number of steps, with guidance and without.
--steps is the number of student updates; the teacher is the round's checkpoint, prompts are generated, held-out
meanings left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

import torch

from benchmarks.demo_checkpoint import add_options, evaluate, open_start, pass_rate, rates
from flywheel.remedies.prompts import write_prompts
from flywheel.signals.suite import load_suite
from training.dmd.recipe import dmd_recipe
from training.dmd.trainer import train
from training.sampling import Sampler

CAPABILITIES = ("object", "count", "typography", "identity")


def main() -> None:
    """Print the table, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--round", type=int, default=2, help="whose candidate is the teacher")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--teacher-steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=1, help="sampling seeds of the evaluation")
    parser.add_argument("--t2i-share", type=float, default=0.5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        teacher, suite = open_start(arguments, scratch, arguments.round)
        exclude = frozenset(p.text for p in suite)
        write_prompts(scratch / "p" / "prompts.jsonl", CAPABILITIES, 96, seed=0, exclude=exclude)
        prompts = load_suite(scratch / "p" / "prompts.jsonl")
        recipe = dmd_recipe("dmd-tiny", steps=arguments.steps, t2i_share=arguments.t2i_share)
        student = train(scratch / "student", prompts, recipe, init=teacher)
        arms = {
            f"teacher, {arguments.teacher_steps} steps, guidance 3": (teacher, arguments.teacher_steps, 3.0),
            "student, 4 steps, none": (student.path, None, None),
            "teacher, 4 steps, guidance 3": (teacher, 4, 3.0),
            "teacher, 4 steps, none": (teacher, 4, 1.0),
        }
        lines = []
        for name, (checkpoint, steps, cfg) in arms.items():
            sampler = Sampler(checkpoint)
            evaluate(sampler, suite[:1], steps=1, cfg=cfg, seed=99)  # scorers and caches are warm
            seen = [evaluate(sampler, suite, steps=steps, cfg=cfg, seed=s) for s in range(arguments.seeds)]
            rate = statistics.fmean(pass_rate(passed) for passed, _ in seen)
            lines.append((name, rate, statistics.fmean(t for _, t in seen), rates(seen[0][0])))
    print(f"{'':<34}{'passed':>8}{'CPU s':>8}  by capability")
    for name, rate, took, by in lines:
        print(f"{name:<34}{rate:>8.1%}{took:>8.2f}  " + ", ".join(f"{k} {v:.0%}" for k, v in by.items()))
    figures = {
        "dmd_pass_share": round(lines[1][1] / lines[0][1], 3),
        "dmd_cpu_speedup": round(lines[0][2] / lines[1][2], 1),
        "teacher_pass_rate": round(lines[0][1], 3),
        "student_pass_rate": round(lines[1][1], 3),
        "teacher_4_pass_rate": round(lines[2][1], 3),
        "teacher_4_without_guidance_pass_rate": round(lines[3][1], 3),
        "student_updates": arguments.steps,
        "prompts_judged": len(suite) * arguments.seeds,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
