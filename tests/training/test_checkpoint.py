"""What a run writes beside its weights: numbers for TensorBoard."""

from __future__ import annotations

import pytest

from tests.training.tiny_runs import run, without_clock


def test_tensorboard_gets_the_same_numbers(tmp_path, snapshot):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(tmp_path, snapshot, tensorboard=True, steps=2)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    events_read = [(e.step, e.value) for e in events.Scalars("loss")]
    assert events_read == [(m["step"], pytest.approx(m["loss"])) for m in without_clock(tmp_path / "metrics.jsonl")]
