"""Several processes train what one trains; what they save, any number of them resumes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flywheel.core.errors import UsageError
from tests.training.test_trainer import STEPS, TINY, contents, run, without_clock
from training.checkpoint import Checkpoint, read_metrics
from training.data.plan import Plan, Source
from training.distributed import World, own_rows
from training.phase import rows_at_once
from training.ray_train import train_on_ray
from training.worker import Run

ROOT = Path(__file__).parents[2]
RECIPE = TINY.change(activation_checkpointing=True, micro_tokens=48, sample_every=4, sample_rows=2)


@pytest.fixture(scope="module")
def pair(tmp_path_factory, snapshot, trained):
    """What two processes wrote: a whole run; one from its step 4; one from step 4 of a single process's run."""
    folder = tmp_path_factory.mktemp("pair")
    single = trained.path.parent / "step-00000004"
    starts = {"whole": None, "resumed": str(folder / "whole" / "step-00000004"), "taken-over": str(single)}
    jobs = [
        {"out": str(folder / name), "start": start, "manifest": str(snapshot), "steps": STEPS,
         "recipe": RECIPE.to_dict()}
        for name, start in starts.items()
    ]  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    child = subprocess.run(
        [*command, "tests/training/together.py", json.dumps(jobs)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    return folder


def losses(out: Path) -> dict[tuple[int, str], float]:
    lines = read_metrics(out / "metrics.jsonl")
    return {(m["step"], k): m[k] for m in lines for k in ("loss", "grad_norm", "validation_loss") if k in m}


def assert_same_training(found: Path, expected: Path, steps: range = range(1, STEPS + 1)):
    one, other = losses(found), losses(expected)
    assert {step for step, _ in one} == set(steps)
    assert all(value == pytest.approx(other[key], abs=1e-6) for key, value in one.items())
    for part in ("model", "ema", "optimizer"):
        a, b = (Checkpoint(path / "final").tensors(part) for path in (found, expected))
        assert a.keys() == b.keys()
        assert max((a[name] - b[name]).abs().max().item() for name in a) < 1e-4


def test_two_processes_train_what_one_trains(pair, trained):
    assert_same_training(pair / "whole", trained.path.parent)
    assert [p.name for p in sorted((pair / "whole" / "samples").iterdir())] == ["step-00000004.png"]
    assert not list((pair / "whole").glob(".*"))


def test_saved_by_two_resumed_by_two(pair):
    assert_same_training(pair / "resumed", pair / "whole", range(5, STEPS + 1))


def test_saved_by_one_resumed_by_two(pair, trained):
    assert_same_training(pair / "taken-over", trained.path.parent, range(5, STEPS + 1))


def test_saved_by_two_resumed_by_one(pair, tmp_path, snapshot):
    saved = pair / "whole" / "step-00000004"
    assert Checkpoint(saved).shares is not None
    shutil.copytree(saved, tmp_path / saved.name)
    run(tmp_path, snapshot)
    assert_same_training(tmp_path, pair / "whole", range(5, STEPS + 1))


def test_shares_are_a_checkpoint_like_any_other(pair, trained):
    shared, single = Checkpoint(pair / "whole" / "step-00000004"), Checkpoint(trained.path.parent / "step-00000004")
    assert shared.step == 4 and shared.fingerprint != single.fingerprint
    one, other = shared.tensors("ema"), single.tensors("ema")
    assert all((one[name] - other[name]).abs().max() < 1e-4 for name in other)
    assert shared.model("ema").config == single.model("ema").config


def test_a_damaged_share_is_named(pair, tmp_path, snapshot):
    shutil.copytree(pair / "whole" / "step-00000004", tmp_path / "step-00000004")
    next((tmp_path / "step-00000004" / "shares").glob("__1*")).unlink()
    with pytest.raises(UsageError, match="step-00000004 cannot be resumed"):
        run(tmp_path, snapshot)


@pytest.mark.parametrize("rows", [1, 4, 7])
@pytest.mark.parametrize("at_once", [0, 2])
def test_every_row_counts_once_and_all_processes_keep_step(rows, at_once):
    parts = [list(own_rows(range(rows), World(rank, 3), at_once)) for rank in range(3)]
    counted = [row for own in parts for part, count in own for row in part[:count]]
    assert sorted(counted) == list(range(rows))
    assert len({tuple(len(part) for part, _ in own) for own in parts}) == 1
    assert all(len(part) <= (at_once or rows) for own in parts for part, _ in own)


def test_a_layout_says_how_many_rows_go_at_once(snapshot):
    plan = Plan([Source(manifest=snapshot)], batch=TINY.batch, t2i_share=0.5, seed=0)
    by_references = {plan.shards[rows[0].shard].shape[2]: rows[0] for rows in plan.batch(0)}
    recipe = TINY.change(micro_tokens=64)  # 32 pixels are 4×4 latent tokens; an edit has as many again
    assert rows_at_once(plan, by_references[0], recipe) == 4
    assert rows_at_once(plan, by_references[1], recipe) == 2
    assert rows_at_once(plan, by_references[1], TINY.change(micro_tokens=1)) == 1
    assert rows_at_once(plan, by_references[1], TINY) == 0


# Switches that fit a run to its machine -----------------------------------------------------------------------------
def test_recomputation_and_accumulation_change_no_result(tmp_path, snapshot, trained):
    changed = run(tmp_path / "a", snapshot, recipe=TINY.change(activation_checkpointing=True))
    assert {**contents(changed), "config.json": b""} == {**contents(trained), "config.json": b""}
    run(tmp_path / "b", snapshot, recipe=TINY.change(micro_tokens=40))
    assert_same_training(tmp_path / "b", trained.path.parent)


def test_a_machines_switches_may_change_between_two_halves(tmp_path, snapshot, trained):
    shutil.copytree(trained.path.parent / "step-00000004", tmp_path / "step-00000004")
    run(tmp_path, snapshot, recipe=TINY.change(micro_tokens=40, validate_every=2))
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [5, 6, 7]


def test_half_precision_keeps_float32_masters_and_learns_alike(tmp_path, snapshot, trained):
    half = run(tmp_path, snapshot, recipe=TINY.change(precision="bf16"))
    assert {t.dtype for part in ("model", "ema", "optimizer") for t in half.tensors(part).values()} == {torch.float32}
    one, other = losses(tmp_path), losses(trained.path.parent)
    assert 1e-7 < max(abs(one[key] - other[key]) for key in other if key[1] == "loss") < 0.02
    with pytest.raises(UsageError, match="precision is 'fp8'"):
        TINY.change(precision="fp8")


def test_a_loss_that_is_no_number_ends_the_run(tmp_path, snapshot):
    with pytest.raises(UsageError, match="step 2: loss .* lower the learning rate"):
        run(tmp_path, snapshot, recipe=TINY.change(learning_rate=1e30, warmup=0))


def test_tensorboard_gets_the_same_numbers(tmp_path, snapshot):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(tmp_path, snapshot, tensorboard=True, steps=2)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    seen = [(e.step, e.value) for e in events.Scalars("loss")]
    assert seen == [(m["step"], pytest.approx(m["loss"])) for m in without_clock(tmp_path / "metrics.jsonl")]


# Ray Train ----------------------------------------------------------------------------------------------------------
def test_ray_train_runs_the_same_training(ray_session, tmp_path, snapshot, trained):
    given = Run(
        out_dir=str(tmp_path), sources=[{"manifest": str(snapshot)}], recipe=TINY.to_dict(), steps=STEPS, seed=5
    )
    with pytest.raises(UsageError, match="3 workers need as many CPUs, the cluster has 2"):
        train_on_ray(given, workers=3)
    assert train_on_ray(given, workers=2).step == STEPS
    assert_same_training(tmp_path, trained.path.parent)
