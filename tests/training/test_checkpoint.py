"""What a run writes beside its weights: the digests of its files, and numbers for TensorBoard."""

from __future__ import annotations

import pytest
import torch

from flywheel.core.files import file_digest
from tests.training.tiny_runs import run, without_clock
from training import checkpoint as checkpoints


def test_tensorboard_gets_the_same_numbers(tmp_path, snapshot):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(tmp_path, snapshot, tensorboard=True, steps=2)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    events_read = [(e.step, e.value) for e in events.Scalars("loss")]
    assert events_read == [(m["step"], pytest.approx(m["loss"])) for m in without_clock(tmp_path / "metrics.jsonl")]


def test_a_checkpoint_lists_its_own_files_and_not_those_of_the_run_whose_settings_it_takes(tmp_path, trained):
    weights = {"model": {"a": torch.zeros(2)}}
    child = checkpoints.write(tmp_path / "child", weights, None, {**trained.config, "step": 1})
    assert child.config["files"].keys() == {"model.safetensors"} and child.config["step"] == 1
    assert child.config["files"]["model.safetensors"]["sha256"] == file_digest(child.path / "model.safetensors")
