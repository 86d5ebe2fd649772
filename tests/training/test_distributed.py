"""Several processes train what one trains; any number of processes resumes from what they save."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from flywheel.core.errors import UsageError
from tests.training.rl_parts import Redness, prompts
from tests.training.tiny_models import randomised
from tests.training.tiny_runs import STEPS, TINY, assert_same_training, run
from tests.training.together import DISTILLED, REWARDED
from tests.training.vae.tiny import SMALL, wave_pictures
from training.checkpoint import Checkpoint, read_metrics
from training.data.row_group import to_unit
from training.distributed import World, own_rows, parallelise
from training.dmd.trainer import train as distil
from training.models.mmdit import preset
from training.models.vae import VAE
from training.rl.trainer import train as reinforce
from training.vae.training import train_vae

ROOT = Path(__file__).parents[2]

RECIPE = TINY.change(activation_checkpointing=True, micro_tokens=48, sample_every=4, sample_rows=2)
LORA = RECIPE.change(lora_rank=4)


@pytest.fixture(scope="module")
def pair(tmp_path_factory, snapshot, trained, start):
    """What two processes wrote: a whole run; one from its step 4; one from step 4 of a single process's run; LoRA;
    a VAE; runs by reward and a distillation.
    """
    folder = tmp_path_factory.mktemp("pair")
    single = trained.path.parent / "step-00000004"
    starts = {"whole": None, "resumed": str(folder / "whole" / "step-00000004"), "taken-over": str(single)}
    jobs = [
        {"out": str(folder / name), "start": begin, "manifest": str(snapshot), "steps": STEPS,
         "recipe": RECIPE.to_dict()}
        for name, begin in starts.items()
    ]  # fmt: skip
    adapted = {"out": str(folder / "adapted"), "recipe": LORA.to_dict(), "init": str(start.path)}
    jobs.append(jobs[0] | adapted | {"start": None})
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    given = {"phases": jobs, "vae": str(folder / "vae"), "loops": str(folder / "loops"), "start": str(start.path)}
    child = subprocess.run(
        [*command, "tests/training/together.py", json.dumps(given)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    return folder


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
    sharded, whole_ema = shared.tensors("ema"), single.tensors("ema")
    assert all((sharded[name] - whole_ema[name]).abs().max() < 1e-4 for name in whole_ema)
    assert shared.model("ema").config == single.model("ema").config


def test_two_processes_train_the_adapter_that_one_trains(pair, tmp_path, snapshot, start):
    alone = run(tmp_path, snapshot, recipe=LORA, init=start.path)
    both = Checkpoint(pair / "adapted" / "final")
    for part in ("model", "ema", "trainable", "trainable_ema"):
        one, two = alone.tensors(part), both.tensors(part)
        assert one.keys() == two.keys() and max((one[n] - two[n]).abs().max() for n in one) < 1e-4
    moved = [n for n, t in both.tensors("ema").items() if not torch.equal(t, start.tensors("ema")[n])]
    assert len(moved) == 4 * 4
    assert [p.name for p in (pair / "adapted" / "samples").iterdir()] == ["step-00000004.png"]


def test_two_processes_train_the_vae_that_one_trains(pair, tmp_path):
    pictures = wave_pictures()
    alone = train_vae(tmp_path / "vae", pictures, SMALL)
    one, two = (read_metrics(path / "metrics.jsonl") for path in (alone.parent, pair / "vae"))
    assert [line["step"] for line in two] == [1, 2, 3, 4]
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-6)  # later, Adam enlarges what rounding differs in
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-3)
    first, second = (
        VAE.open(str(path)).encode(to_unit(pictures[:, :, :32, :32])) for path in (alone, pair / "vae/final")
    )
    assert (first - second).abs().max() < 0.05 * first.std()
    with pytest.raises(UsageError, match="3 processes cannot share a batch of 2"):
        train_vae(tmp_path / "three", pictures, SMALL, world=World(0, 3))


def test_two_processes_reinforce_what_one_does_and_stop_and_resume_together(pair, tmp_path, start):
    cards, held_out = prompts(tmp_path, 8), prompts(tmp_path, 3, first=20)
    alone = reinforce(tmp_path / "rl", cards, held_out, REWARDED, Redness(), init=start.path, seed=3)
    both = Checkpoint(pair / "loops" / "rl" / "final")
    _assert_close(alone, both, "model", "ema", "trainable", "trainable_ema", "optimizer")
    one, two = (read_metrics(c.path.parent / "metrics.jsonl") for c in (alone, both))
    assert both.config["held_out"] == pytest.approx(alone.config["held_out"], abs=1e-3)  # of pictures of 8 bits
    for ours, theirs in zip(two, one, strict=True):
        assert ours["mix"] == theirs["mix"] and ours["flat_groups"] == theirs["flat_groups"]
        assert ours["rewards"]["red"] == pytest.approx(theirs["rewards"]["red"], abs=1e-4)
        assert all(ours[k] == pytest.approx(theirs[k], abs=1e-4) for k in ("loss", "grad_norm", "ratio_mean", "kl"))
    assert [p.name for p in (pair / "loops" / "flat").glob("step-*")] == ["step-00000001"]


def test_two_processes_distil_what_one_does(pair, tmp_path, start):
    alone = distil(tmp_path / "dmd", prompts(tmp_path, 8), DISTILLED, init=start.path, seed=3)
    both = Checkpoint(pair / "loops" / "dmd" / "final")
    _assert_close(alone, both, "model", "ema", "fake", "model_optimizer", "fake_optimizer")
    one, two = (read_metrics(c.path.parent / "metrics.jsonl") for c in (alone, both))
    for key in ("loss", "fake_loss", "grad_norm"):
        assert [line[key] for line in two] == pytest.approx([line[key] for line in one], rel=1e-4)


def _assert_close(alone: Checkpoint, both: Checkpoint, *parts: str) -> None:
    for part in parts:
        one, two = alone.tensors(part), both.tensors(part)
        assert one.keys() == two.keys() and max((one[n] - two[n]).abs().max() for n in one) < 1e-5


def test_a_damaged_share_is_named(pair, tmp_path, snapshot):
    shutil.copytree(pair / "whole" / "step-00000004", tmp_path / "step-00000004")
    next((tmp_path / "step-00000004" / "shares").glob("__1*")).unlink()
    with pytest.raises(UsageError, match="__1_0.distcp is missing from its checkpoint: restore it"):
        run(tmp_path, snapshot)


def test_compiled_blocks_share_few_graphs_for_texts_of_every_length(monkeypatch):
    """And compute what the others do, in whole graphs; the compiler's last stage, which writes kernels, is left out."""
    torch._dynamo.reset()
    counter, compiled = CompileCounterWithBackend("aot_eager"), torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compiled(f, backend=counter, **options))
    plain = randomised(preset("tiny", channels=4, condition_dim=8, depth=3).build(), std=0.2).double()
    model = parallelise(copy.deepcopy(plain), TINY.change(compile=True), World())
    counts = []
    for longest, lengths in ((8, None), (9, None), (13, [13, 6]), (17, [2, 17]), (30, None), (21, [21, 20])):
        valid = None if lengths is None else torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
        shapes, layout = ((2, 4, 4), (2, longest, 8)), (longest, (2, 2))
        image, text = (
            torch.randn(shape, generator=torch.Generator().manual_seed(longest)).double() for shape in shapes
        )
        given = {"text_valid_BL": valid, "text_lengths": lengths}
        mine, theirs = (m(image, torch.tensor([0.2, 0.9]), text, layout, **given) for m in (model, plain))
        torch.testing.assert_close(mine, theirs)
        for m, out in ((model, mine), (plain, theirs)):
            m.zero_grad()
            out.square().sum().backward()
        for a, b in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-5)
        counts.append(counter.frame_count)
    assert counts[2:] == counts[2:3] * 4 and counts[-1] <= 6  # before and after attention, first and last, any length


@pytest.mark.parametrize("rows", [1, 4, 7])
@pytest.mark.parametrize("at_once", [0, 2])
def test_every_row_counts_once_and_all_processes_keep_step(rows, at_once):
    parts = [list(own_rows(range(rows), World(rank, 3), at_once)) for rank in range(3)]
    counted = [row for own in parts for part, count in own for row in part[:count]]
    assert sorted(counted) == list(range(rows))
    assert len({tuple(len(part) for part, _ in own) for own in parts}) == 1
    assert all(len(part) <= (at_once or rows) for own in parts for part, _ in own)
