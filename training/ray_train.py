"""Training with Ray Train: its workers take the place of torchrun's processes, on any Ray cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flywheel.core.errors import UsageError
from training.checkpoint import FINAL, Checkpoint
from training.worker import TrainingRun, progress_of, train_run


def train_on_ray(
    run: TrainingRun,
    *,
    workers: int,
    gpus: bool = False,
    restarts: int = 3,
    trackers: Sequence[str] = (),
    progress: Callable[[int, int, str], None] | None = None,
) -> Checkpoint:
    """Train `run` with `workers` processes, one GPU each if `gpus`; returns the final checkpoint.

    Every node must see the run's folder, shards and parent under the same paths. Dead workers are restarted up to
    `restarts` times, and training resumes from the last checkpoint. Uses the program's connection to Ray.
    Errors: `UsageError` if the user can fix it.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    available = ray.cluster_resources().get("GPU" if gpus else "CPU", 0)
    if workers > available:
        raise UsageError(
            f"{workers} workers need as many {'GPUs' if gpus else 'CPUs'}, the cluster has {available:g}: ask for fewer"
        )
    out_dir = Path(run.out_dir).resolve()
    trainer = TorchTrainer(
        _work,
        train_loop_config={"run": {**asdict(run), "out_dir": str(out_dir)}, "trackers": trackers},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo"),
        run_config=RunConfig(
            name="ray", storage_path=str(out_dir), failure_config=FailureConfig(max_failures=restarts)
        ),
    )
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(run, progress, ended), daemon=True)
    if progress is not None:
        watcher.start()
    try:
        trainer.fit()
    except TrainingFailedError as error:
        for failure in getattr(error, "worker_failures", {}).values():
            if isinstance(cause := getattr(failure, "_base_exc", failure), UsageError):
                raise cause from error
        raise
    finally:
        ended.set()
    return Checkpoint(out_dir / FINAL)


def _work(config: Mapping[str, Any]) -> None:
    """One worker; Ray Train has already set up the process group that `train` joins."""
    train_run(TrainingRun(**config["run"]), trackers=config["trackers"])


def _watch(run: TrainingRun, progress: Callable[[int, int, str], None], ended: threading.Event) -> None:
    while not ended.wait(1.0):
        done, loss = progress_of(run)
        progress(done, run.steps, f"loss {loss}")
