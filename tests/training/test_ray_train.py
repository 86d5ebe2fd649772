"""Ray Train runs the same training."""

from __future__ import annotations

import pytest

from flywheel.core.errors import UsageError
from tests.training.tiny_runs import STEPS, TINY, assert_same_training
from training.ray_train import train_on_ray
from training.worker import TrainingRun


def test_ray_train_runs_the_same_training(ray_session, tmp_path, snapshot, trained):
    training_run = TrainingRun(
        out_dir=str(tmp_path), sources=[{"manifest": str(snapshot)}], recipe=TINY.to_dict(), steps=STEPS, seed=5
    )
    with pytest.raises(UsageError, match="3 workers need as many CPUs, the cluster has 2"):
        train_on_ray(training_run, workers=3)
    assert train_on_ray(training_run, workers=2).step == STEPS
    assert_same_training(tmp_path, trained.path.parent)
