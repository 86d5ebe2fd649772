"""Trackers get the numbers of a run, offline, and go on in the same run after a resume; none stops a training."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import pytest

from flywheel.core.errors import UsageError
from training import trackers
from training.trackers import Trackers, chosen

LINES = [{"step": n, "loss": 1 / n, "stage": "S1", "rate": None} for n in (1, 2, 3)]


def write(names: list[str], folder: Path, *, stop: int = 3) -> None:
    """Three steps, of which the last ones after `stop` come in a second process's view: a resumed run."""
    folder.mkdir(exist_ok=True)
    for begin, end in ((0, stop), (stop, 3)):
        made = Trackers(names, folder, resume_step=begin)
        for line in LINES[begin:end]:
            made.log(line)
        made.close()


def test_tensorboard_has_each_step_once(tmp_path: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write(["tensorboard"], tmp_path / "run", stop=2)
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(n, pytest.approx(1 / n)) for n in (1, 2, 3)]


@pytest.mark.slow
def test_wandb_writes_files_and_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens there: a request would fail
    write(["wandb"], tmp_path / "run", stop=2)
    runs = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(runs) == 2 and len({r.name.rpartition("-")[2] for r in runs}) == 1, "a resumed run has the same id"
    files = [next(r.glob("*.wandb")) for r in runs]  # what `wandb sync` would send
    until = time.monotonic() + 20
    while min(f.stat().st_size for f in files) < 1000 and time.monotonic() < until:
        time.sleep(0.1)  # its own process writes them
    first, resumed = (f.read_bytes() for f in files)
    assert b"loss" in first and b"0.5" in first and b"0.3333333" not in first
    assert b"loss" in resumed and b"0.3333333" in resumed and b"stage" not in first + resumed


def test_mlflow_writes_into_the_runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Skipped with the pinned versions, which MLflow does not accept: run it in an environment of its own."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write(["mlflow"], tmp_path / "run", stop=2)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/run/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "flywheel"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_id == (tmp_path / "run" / "mlflow.txt").read_text().strip()
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


def test_names_come_from_the_call_or_else_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(trackers.VARIABLE, "wandb, tensorboard,")
    assert chosen(None) == ("wandb", "tensorboard") and chosen([]) == () and chosen(["mlflow"]) == ("mlflow",)
    with pytest.raises(UsageError, match="unknown tracker 'neptune': choose tensorboard, wandb, mlflow"):
        chosen(["neptune"])
    monkeypatch.setenv(trackers.VARIABLE, "comet")
    with pytest.raises(UsageError, match="unknown tracker 'comet'"):
        chosen(None)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=f"the tracker {name} is not installed: pip install"):
        Trackers([name], tmp_path, resume_step=0)


def test_a_tracker_that_fails_costs_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    seen: list[tuple[int, float]] = []

    class Broken:
        def __init__(self, out_dir: Path, resume_step: int) -> None: ...

        def log(self, step: int, values: dict[str, float]) -> None:
            if step == 2:
                raise ConnectionError("no route")
            seen.append((step, values["loss"]))

        def close(self) -> None:
            raise AssertionError("a tracker that failed is left alone")

    monkeypatch.setattr(trackers, "KINDS", {"broken": Broken})
    with caplog.at_level(logging.WARNING):
        write(["broken"], tmp_path / "run")
    assert seen == [(1, 1.0)] and "the tracker broken failed" in caplog.text and "no route" in caplog.text
