"""The loop: exact resume, overfitting, idempotence, start from a parent, switches that fit a run to its machine."""

from __future__ import annotations

import os
import shutil
import signal
from functools import partial

import pytest
import torch

from flywheel.core.errors import UsageError
from tests.training.rl_parts import killed_at, written_late
from tests.training.tiny_runs import STEPS, TINY, assert_same_training, contents, losses, run, without_clock
from training.batch import batch_loss
from training.checkpoint import Checkpoint, read_metrics
from training.data.loader import Loader
from training.data.plan import DataPlan, MixSource
from training.initial import build_model
from training.models.encoders import load_condition_encoder
from training.phase import prepare_with, texts_with
from training.sampling import sample
from training.vae.autoencoding import fit_autoencoder


def test_killed_and_run_again_equals_uninterrupted_bit_for_bit(tmp_path, snapshot, trained, monkeypatch):
    """Killed between two steps and amid the writing of a checkpoint; those of the last run are written late."""
    out = tmp_path / "out"
    for step in (1, 5):  # before the first checkpoint, then in the second stage, just after a checkpoint at its start
        assert killed_at(step, partial(run, out, snapshot)) == -signal.SIGKILL
        assert not (out / "final").exists()
    assert [c.step for c in map(Checkpoint, sorted(out.glob("step-*")))] == [2, 4]
    with monkeypatch.context() as patch:
        patch.setattr("training.saving.seal", lambda *given: os.kill(os.getpid(), signal.SIGKILL))
        assert killed_at(STEPS, partial(run, out, snapshot)) == -signal.SIGKILL
    assert [c.step for c in map(Checkpoint, sorted(out.glob("step-*")))] == [2, 4]
    assert (out / ".step-00000006.tmp" / "model.safetensors").exists()
    with open(out / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')

    resumed = run(out, snapshot, progress=written_late(monkeypatch, "training.phase", "write_together"))
    for name in ("final", "step-00000006"):
        assert contents(Checkpoint(out / name)) == contents(Checkpoint(trained.path.parent / name))
    assert resumed.step == STEPS
    assert without_clock(out / "metrics.jsonl") == without_clock(trained.path.parent / "metrics.jsonl")
    assert not list(out.glob(".*"))


def test_a_finished_run_returns_at_once_and_touches_nothing(trained, snapshot):
    before = {p: p.stat().st_mtime_ns for p in trained.path.parent.rglob("*")}
    called = []
    again = run(trained.path.parent, snapshot, progress=lambda *a: called.append(a))
    assert again.fingerprint == trained.fingerprint and called == []
    assert {p: p.stat().st_mtime_ns for p in trained.path.parent.rglob("*")} == before


def test_another_run_in_the_same_folder_is_refused(trained, snapshot):
    with pytest.raises(UsageError, match="belongs to another run"):
        run(trained.path.parent, snapshot, seed=6)


def test_metrics_and_kept_checkpoints(trained):
    lines = read_metrics(trained.path.parent / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["step"] for line in lines if line.get("validation_loss")] == [3, 6, 7]
    assert lines[-1]["samples"] == STEPS * 8
    rate = TINY.stages[0].learning_rate
    assert lines[0]["lr"] == rate / 2 and lines[1]["lr"] == rate
    assert [line["stage"] for line in lines] == ["S1"] * 4 + ["S2"] * 3
    assert float(trained.tensors("optimizer")["step.image_out.weight"]) == STEPS  # the optimiser goes on in S2
    assert sorted(p.name for p in trained.path.parent.glob("step-*")) == ["step-00000004", "step-00000006"]


def test_parent_gives_weights_autoencoder_and_shape(tmp_path, snapshot, trained):
    child = run(tmp_path, snapshot, init=trained.path, steps=1, recipe=TINY.change(learning_rate=0.0, weight_decay=0.0))
    start, end = trained.tensors("ema"), child.tensors("model")
    assert all(torch.equal(start[name], end[name]) for name in start)
    assert child.autoencoder().fingerprint == trained.autoencoder().fingerprint
    assert child.config["init"] == trained.fingerprint
    assert float(child.tensors("optimizer")["step.image_out.weight"]) == 1  # a fresh optimiser


def test_overfits_one_batch(snapshot):
    """One micro-batch again and again, with its own noise and times: the loss falls below 2 % of its first value."""
    plan = DataPlan([MixSource(manifest=snapshot)], batch={64: 4}, t2i_share=1.0, seed=0)
    encoder = load_condition_encoder()
    autoencoder = fit_autoencoder(plan, TINY)
    (micro,) = Loader(
        plan, prepare_with(autoencoder), texts=texts_with(encoder), encode=encoder.encode, resolution=TINY.resolution
    ).batch(0)
    model, null, losses = build_model(TINY, encoder, seed=0), encoder.encode([""])[0], []
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(150):
        loss = batch_loss(model, micro, null, TINY, seed=0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]


def test_training_goes_on_after_sampling_with_a_layout_first_seen_there(tmp_path, snapshot, trained):
    sample(trained, ["a red disc at the left"], size=(48, 48), steps=1)
    # Position tables are cached by layout: these are the sampler's.
    changed = run(tmp_path, snapshot, recipe=TINY.change(resolution={64: 48}))
    assert changed.step == STEPS


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
    half_losses, full_losses = losses(tmp_path), losses(trained.path.parent)
    assert 1e-7 < max(abs(half_losses[key] - full_losses[key]) for key in full_losses if key[1] == "loss") < 0.02
    with pytest.raises(UsageError, match="precision is 'fp8'"):
        TINY.change(precision="fp8")


LORA = TINY.change(lora_rank=4, lora_alpha=6.0, lora_targets=("qkv", "down"))


def test_an_adapter_alone_trains_and_a_killed_run_resumes_to_the_same_bits(tmp_path, snapshot, start):
    whole = run(tmp_path / "whole", snapshot, recipe=LORA, init=start.path)
    assert killed_at(5, partial(run, tmp_path / "killed", snapshot, recipe=LORA, init=start.path)) == -signal.SIGKILL
    assert contents(run(tmp_path / "killed", snapshot, recipe=LORA, init=start.path)) == contents(whole)
    before = start.tensors("ema")
    for part in ("model", "ema"):  # a plain checkpoint, in which nothing but the adapted layers has moved
        after = whole.tensors(part)
        assert after.keys() == before.keys()
        moved = {name for name in after if not torch.equal(after[name], before[name])}
        assert moved == {f"blocks.{b}.{layer}.weight" for b in range(4) for layer in LORA.lora_targets}
    moments = {name.removeprefix("exp_avg.") for name in whole.tensors("optimizer") if name.startswith("exp_avg.")}
    assert moments == whole.tensors("trainable").keys() and len(moments) == 2 * 2 * 4
    assert whole.config["lora"] == {"rank": 4, "alpha": 6.0, "targets": ["qkv", "down"]}
    assert whole.config["init"] == start.fingerprint
    assert {p.name for p in (tmp_path / "whole" / "step-00000006").glob("*.safetensors")} == {
        "trainable.safetensors", "trainable_ema.safetensors", "optimizer.safetensors", "autoencoder.safetensors",
    }  # fmt: skip
    assert sample(whole, ["a red disc"], size=(32, 32), steps=1).shape == (1, 32, 32, 3)
    with pytest.raises(UsageError, match="holds an adapter alone: its run's 'final' folder holds whole weights"):
        sample(Checkpoint(tmp_path / "whole" / "step-00000006"), ["a red disc"])


def test_an_adapter_needs_something_to_adapt(tmp_path, snapshot, start):
    with pytest.raises(UsageError, match="lora_rank adapts a checkpoint: give one to start from"):
        run(tmp_path / "a", snapshot, recipe=LORA)
    run(tmp_path / "b", snapshot, recipe=LORA, init=start.path, steps=2)
    with pytest.raises(UsageError, match="belongs to another run"):
        run(tmp_path / "b", snapshot, recipe=LORA.change(lora_alpha=7.0), init=start.path, steps=2)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path, snapshot):
    with pytest.raises(UsageError, match="step 2: loss .* lower the learning rate"):
        run(tmp_path, snapshot, recipe=TINY.change(learning_rate=1e30, warmup=0))


@pytest.mark.parametrize("steps", [1, 4])  # at the end, and at a checkpoint on the way
def test_weights_that_are_no_numbers_are_never_sealed(tmp_path, snapshot, steps):
    """The loss and its gradient were finite: it is the update that is not."""
    recipe = TINY.change(learning_rate=1e39, warmup=0, checkpoint_every=1)
    with pytest.raises(UsageError, match="step 1: weights are not finite .* lower the learning rate .*; run again"):
        run(tmp_path, snapshot, recipe=recipe, steps=steps)
    assert not list(tmp_path.glob("step-*")) and not (tmp_path / "final").exists()
