"""What a run writes beside its weights: the digests of its files, and numbers for TensorBoard."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from flywheel.core.errors import UsageError
from flywheel.core.files import file_digest
from tests.training.tiny_runs import run, without_clock
from training import checkpoint as checkpoints
from training import saving
from training.sampling import Sampler


def test_tensorboard_gets_the_same_numbers(tmp_path, snapshot):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(tmp_path, snapshot, trackers=["tensorboard"], steps=2)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    events_read = [(e.step, e.value) for e in events.Scalars("loss")]
    assert events_read == [(m["step"], pytest.approx(m["loss"])) for m in without_clock(tmp_path / "metrics.jsonl")]


def test_a_checkpoint_lists_its_own_files_and_not_those_of_the_run_whose_settings_it_takes(tmp_path, trained):
    weights = {"model": {"a": torch.zeros(2)}}
    child = saving.write(tmp_path / "child", weights, None, {**trained.config, "step": 1})
    assert child.config["files"].keys() == {"model.safetensors"} and child.config["step"] == 1
    assert child.config["files"]["model.safetensors"]["sha256"] == file_digest(child.path / "model.safetensors")


def test_a_checkpoint_that_is_not_finite_draws_nothing_and_is_named(tmp_path, start):
    """What trains from one: `test_initial.py`."""
    weights = start.tensors("ema")
    weights["image_out.weight"][0, 0] = torch.nan
    path = saving.write(tmp_path / "final", {"ema": weights}, start.autoencoder(), start.config).path
    with pytest.raises(UsageError, match="/final: the weight image_out.weight is not finite"):
        Sampler(path)


def test_an_autoencoder_that_is_not_finite_is_named(tmp_path, start):
    coder = start.autoencoder()
    bad = replace(coder, scale=coder.scale * torch.inf)
    path = saving.write(tmp_path / "final", {"ema": start.tensors("ema")}, bad, start.config).path
    with pytest.raises(UsageError, match="autoencoder.safetensors: the weight scale is not finite"):
        Sampler(path)


def test_a_changed_checkpoint_is_not_loaded(tmp_path, trained):
    """Every way to load one: to sample, to resume, and to look at."""
    copy = tmp_path / "copy"
    shutil.copytree(trained.path, copy)
    Sampler(copy).sample(["a"], size=(32, 32), steps=1)
    for name in ("ema.safetensors", "autoencoder.safetensors", "model.safetensors", "optimizer.safetensors"):
        data = bytearray((copy / name).read_bytes())
        data[-1] ^= 1  # a weight, which any reader takes
        (copy / name).write_bytes(bytes(data))
        part = name.partition(".")[0]
        with pytest.raises(UsageError, match=f"{name} has changed since it was written .*: restore it from a copy"):
            changed = checkpoints.Checkpoint(copy)
            changed.autoencoder() if part == "autoencoder" else changed.tensors(part)
        if part in ("ema", "autoencoder"):
            with pytest.raises(UsageError, match=f"{name} has changed"):
                Sampler(copy)
        if part in ("model", "optimizer"):
            with pytest.raises(UsageError, match=f"{name} has changed"):
                checkpoints.Checkpoint(copy).restore({part: {}})
        data[-1] ^= 1
        (copy / name).write_bytes(bytes(data))
    (copy / "ema.safetensors").unlink()
    with pytest.raises(UsageError, match="ema.safetensors is missing from its checkpoint"):
        checkpoints.Checkpoint(copy).model()
