"""Short training runs on a small snapshot, and what they wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.checkpoint import Checkpoint, read_metrics
from training.data.plan import MixSource
from training.phase import train
from training.recipes import recipe

STEPS = 7

TINY = recipe(
    "tiny", batch={64: 8}, resolution={64: 32}, channels=16, text_tokens=16, checkpoint_every=2, validate_every=3,
    warmup=2, stages=("S1", "S2"),
)  # fmt: skip


def run(out: Path, manifest: Path, **changes):
    arguments = {"seed": 5, "steps": STEPS} | changes
    return train(out, [MixSource(manifest=manifest)], arguments.pop("recipe", TINY), **arguments)


def contents(checkpoint: Checkpoint) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(checkpoint.path.iterdir())}


def without_clock(path: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "cpu_seconds"} for line in read_metrics(path)]


def losses(out: Path) -> dict[tuple[int, str], float]:
    lines = read_metrics(out / "metrics.jsonl")
    return {(m["step"], k): m[k] for m in lines for k in ("loss", "grad_norm", "validation_loss") if k in m}


def assert_same_training(folder: Path, expected: Path, steps: range = range(1, STEPS + 1)):
    ours, theirs = losses(folder), losses(expected)
    assert {step for step, _ in ours} == set(steps)
    assert all(value == pytest.approx(theirs[key], abs=1e-6) for key, value in ours.items())
    for part in ("model", "ema", "optimizer"):
        a, b = (Checkpoint(path / "final").tensors(part) for path in (folder, expected))
        assert a.keys() == b.keys()
        assert max((a[name] - b[name]).abs().max().item() for name in a) < 1e-4
