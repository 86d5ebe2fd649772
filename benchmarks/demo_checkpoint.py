"""Where the benchmarks of RL and distillation start: a checkpoint of the demo world and its held-out suite."""

from __future__ import annotations

import argparse
import io
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from flywheel.demo.suite import write_suite
from flywheel.signals.judging import judge_images
from flywheel.signals.suite import Prompt, load_suite
from training.sampling import Sampler

Passed = dict[str, dict[str, float]]
"""Capability → {prompt id: 1 where all of its checks pass, else 0}."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """--workspace and --checkpoint."""
    parser.add_argument("--workspace", type=Path, help="workspace of a finished demo (default: one is trained)")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint folder to start from, instead of the workspace's")


def open_start(arguments: argparse.Namespace, scratch: Path, round_: int) -> tuple[Path, list[Prompt]]:
    """(checkpoint of the round, held-out suite); trains the demo's rounds if neither option is set."""
    workspace = arguments.workspace
    if arguments.checkpoint:
        suite = workspace / "suite" / "suite.jsonl" if workspace else write_suite(scratch / "suite")
        return arguments.checkpoint, load_suite(suite)
    if workspace is None:
        from flywheel.core.progress import Progress
        from flywheel.demo.world import write_world
        from flywheel.rounds.job import Job
        from flywheel.rounds.run import run

        workspace = scratch / "demo"
        world = write_world(scratch / "world")
        job = Job(workspace=str(workspace), source=str(world.folder), preset="demo", rounds=round_, workers=1)
        run(job, progress=Progress())
    suite = load_suite(workspace / "suite" / "suite.jsonl")
    return workspace / "checkpoints" / f"round-{round_:04d}-candidate" / "final", suite


def draw(
    sampler: Sampler, suite: Sequence[Prompt], *, steps: int | None, cfg: float | None, seed: int, side: int = 64
) -> tuple[list[bytes], float]:
    """PNGs of all prompts, and the CPU-seconds of sampling."""
    import numpy as np

    from flywheel.core.image import decode

    shown = [[np.asarray(decode(r)) for r in p.reference_bytes()] for p in suite]
    texts, began = [p.text for p in suite], time.process_time()
    pictures = sampler.sample(texts, shown, size=(side, side), steps=steps, cfg=cfg, seed=seed)
    took = time.process_time() - began
    encoded = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return encoded, took


def judge(suite: Sequence[Prompt], pictures: Sequence[bytes]) -> Passed:
    """Pass or fail of every prompt by capability."""
    out: Passed = {}
    for prompt, outcomes in zip(suite, judge_images(suite, pictures)):
        for o in outcomes:
            row = out.setdefault(o.capability, {})
            row[prompt.prompt_id] = row.get(prompt.prompt_id, 1.0) * float(bool(o.passed))
    return out


def rates(passed: Passed) -> dict[str, float]:
    """Passed share by capability."""
    return {name: sum(row.values()) / len(row) for name, row in sorted(passed.items())}


def passes(passed: Passed) -> dict[str, float]:
    """Prompt → 1 where every check passes, else 0."""
    every: dict[str, float] = {}
    for row in passed.values():
        for prompt, value in row.items():
            every[prompt] = every.get(prompt, 1.0) * value
    return every


def interval(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the mean (Student's t); NaN for fewer than two values."""
    from scipy.stats import t as student_t

    if len(values) < 2:
        return math.nan
    return student_t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
