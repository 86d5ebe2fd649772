"""Trackers that get the numbers of a training run beside `metrics.jsonl`: TensorBoard, Weights & Biases, MLflow.

Nothing is sent anywhere unless the tracker's own environment variables say so: W&B writes files that `wandb sync`
uploads later, unless WANDB_API_KEY or WANDB_MODE is set; MLflow writes to `mlflow.db` in the run's folder,
unless MLFLOW_TRACKING_URI is set. A tracker that fails is told of once and left out: training goes on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from flywheel.core import hashes
from flywheel.core.errors import UsageError
from flywheel.core.files import digest, write_bytes

VARIABLE = "FLYWHEEL_TRACKERS"  # names, separated by commas, for every training that is not told others
PROJECT = "flywheel"  # of W&B and experiment of MLflow, unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME says otherwise
_WORDS = ("step", "stage")  # of a line: no numbers to draw

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """What gets the numbers of a run, step by step."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """The numbers of one step."""

    def close(self) -> None:
        """The run has finished."""


class TensorBoard:
    """Events in `tensorboard` of the run's folder; those after the step that training resumes from are purged."""

    def __init__(self, out_dir: Path, resume_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        hashes.living(out_dir / "tensorboard")
        self._writer = SummaryWriter(str(out_dir / "tensorboard"), purge_step=resume_step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a scalar for each number."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases with a fixed id, so that a resumed training goes on in it; files in `wandb`."""

    def __init__(self, out_dir: Path, resume_step: int) -> None:
        import wandb

        hashes.living(out_dir / "wandb")
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=out_dir.name,
            id=digest(str(out_dir.resolve()))[:16],
            dir=str(out_dir),
            mode=mode,
            resume="allow",
            settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers; W&B itself leaves out steps that it has."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MLflow:
    """A run of MLflow; its id is kept in `mlflow.txt`, so that a resumed training goes on in it."""

    def __init__(self, out_dir: Path, resume_step: int) -> None:
        from mlflow import MlflowClient

        address, files = os.environ.get("MLFLOW_TRACKING_URI"), None
        if not address:
            hashes.note(out_dir / "mlflow.db", hashes.LIVING)
            address = f"sqlite:///{(out_dir / 'mlflow.db').resolve()}"
            files = (out_dir / "mlflow").resolve().as_uri()  # unused, but its default is the folder of the process
        self._client = MlflowClient(tracking_uri=address)
        kept = out_dir / "mlflow.txt"
        if kept.exists():
            self._id = kept.read_text().strip()
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name, artifact_location=files)
        self._id = self._client.create_run(experiment, run_name=out_dir.name).info.run_id
        write_bytes(kept, f"{self._id}\n".encode())

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the numbers in one request."""
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, [Metric(name, float(value), now, step) for name, value in values.items()])

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._id)


KINDS: Mapping[str, type[Any]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}
_INSTALL = {
    "tensorboard": "pip install 'image-flywheel[train]'",
    "wandb": "pip install 'image-flywheel[wandb]'",
    "mlflow": "pip install mlflow, into an environment whose versions it accepts: it does not go with the pinned ones",
}


class Trackers:
    """The chosen trackers of one run, as one."""

    def __init__(self, names: Sequence[str] | None, out_dir: Path, *, resume_step: int) -> None:
        self._open: dict[str, Tracker] = {}
        for name in chosen(names):
            try:
                self._open[name] = KINDS[name](out_dir, resume_step)
            except ModuleNotFoundError as error:
                raise UsageError(f"the tracker {name} is not installed: {_INSTALL[name]}") from error

    def log(self, line: Mapping[str, Any]) -> None:
        """Hand on the numbers of a line of `metrics.jsonl`."""
        numbers = {k: v for k, v in line.items() if k not in _WORDS and isinstance(v, int | float)}
        for name in list(self._open):
            self._try(name, "log", line["step"], numbers)

    def close(self) -> None:
        """Say that the run has finished."""
        for name in list(self._open):
            self._try(name, "close")

    def _try(self, name: str, what: str, *arguments: Any) -> None:
        try:
            getattr(self._open[name], what)(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever its client raises: no training ends for it
            log.warning("the tracker %s failed and gets nothing more of this run: %s", name, error)
            del self._open[name]


def chosen(names: Sequence[str] | None) -> tuple[str, ...]:
    """The names, or those of the environment if there are None. Errors: `UsageError` for an unknown one."""
    listed = os.environ.get(VARIABLE, "").split(",") if names is None else names
    wanted = tuple(dict.fromkeys(name.strip() for name in listed if name.strip()))
    for name in wanted:
        if name not in KINDS:
            raise UsageError(f"unknown tracker {name!r}: choose {', '.join(KINDS)}")
    return wanted
