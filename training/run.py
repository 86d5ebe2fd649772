"""What every training loop shares: whose folder it is, where it resumes, metrics, and when something is due."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from flywheel.core.errors import UsageError
from flywheel.core.files import is_whole
from training import checkpoint as checkpoints
from training.checkpoint import Checkpoint, Metrics
from training.saving import Writer

if TYPE_CHECKING:
    from training.distributed import World

Progress = Callable[[int, int, Mapping[str, Any]], None]
"""(step, steps, metrics of the step)."""


class Trainer(Protocol):
    """A loop's state: `done` counts the steps taken."""

    done: int

    def one_step(self) -> dict[str, Any]:
        """Take one step and return its metrics."""
        ...


def finished(out_dir: Path, run: str) -> Checkpoint | None:
    """The final checkpoint of `run`, None if it is not finished. Errors: `UsageError` for another run's folder."""
    final = Checkpoint(out_dir / checkpoints.FINAL)
    return same_run(final, run) if is_whole(final.path) else None


def last_checkpoint(out_dir: Path, run: str) -> Checkpoint | None:
    """The checkpoint that `run` resumes from, None at its start. Errors: `UsageError` for another run's folder."""
    saved = checkpoints.steps(out_dir)
    return same_run(saved[-1], run) if saved else None


def same_run(checkpoint: Checkpoint, run: str) -> Checkpoint:
    """The checkpoint, if `run` wrote it. Errors: `UsageError`."""
    if checkpoint.config["run"] != run:
        raise UsageError(
            f"{checkpoint.path} belongs to another run (data, recipe, steps, seed or parent differ): give a new folder,"
            " and --extend to go on from that run; or, where pictures were erased meanwhile, remove"
            f" {checkpoint.path.parent} to train anew"
        )
    return checkpoint


def take_steps(
    trainer: Trainer,
    out_dir: Path,
    steps: int,
    save: Callable[[str], Callable[[], object]],
    *,
    checkpoint_every: int,
    progress: Progress | None,
    world: World | None = None,
    trackers: Sequence[str] | None = None,
    after_step: Callable[[], object] | None = None,
) -> None:
    """Step until `steps` are done; log each step, and `save` intermediate checkpoints by name. The last two stay.

    save: copies what the next steps change, and returns what writes it, which goes on beside them. A write that fails
    stops the run when the next one is due, or at the end.
    world: of the processes that train together: each steps and saves, the first one logs, reports and removes.
    """
    from training.distributed import World

    world = world or World()
    metrics = Metrics(out_dir, resume_step=trainer.done, trackers=trackers) if world.first else None
    with Writer(world) as writer:
        while trainer.done < steps:
            clock = time.process_time()
            line = trainer.one_step()
            if metrics is not None:
                metrics.append({**line, "cpu_seconds": cpu_seconds(clock)})
            if progress is not None and world.first:
                progress(trainer.done, steps, line)
            if after_step is not None:
                after_step()
            if due(checkpoint_every, trainer.done) and trainer.done < steps:
                writer.start(partial(_taken, save, step_name(trainer.done), out_dir, world))
    if metrics is not None:
        metrics.close()


def _taken(save: Callable[[str], Callable[[], object]], name: str, out_dir: Path, world: World) -> Callable[[], object]:
    """Take the copy of a checkpoint; returns what writes it, then removes all but the last two."""
    write = save(name)

    def written() -> None:
        write()
        if world.first:
            checkpoints.prune(out_dir, keep=2)

    return written


_DIVERGED = "lower the learning rate or check the data of this step; run again to resume from the last checkpoint"


def require_finite(step: int, loss: float, norm: float) -> None:
    """Before an update. Errors: `UsageError` if the loss or the gradient norm of step number `step` is not finite."""
    if not math.isfinite(loss + norm):
        raise UsageError(f"step {step}: loss {loss}, gradient norm {norm}: {_DIVERGED}")


def require_finite_tensors(step: int, what: str, tensors: Mapping[str, Tensor]) -> None:
    """Before they are stored or shown. Errors: `UsageError` if a value is not finite; `what`: its name there."""
    bad = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if bad:
        raise UsageError(f"step {step}: {what} are not finite ({bad[0]}): {_DIVERGED}")


def require_finite_shares(step: int, state: Mapping[str, Mapping[str, Tensor]], world: World) -> None:
    """`require_finite_tensors` for weights of which each process holds a share; every process must call it."""
    shares = [(name, tensor) for part, named in state.items() if part != "optimizer" for name, tensor in named.items()]
    bad = [name for name, t in shares if not bool((t.to_local() if hasattr(t, "to_local") else t).isfinite().all())]
    if world.sum(len(bad)):
        where = bad[0] if bad else "in another process"
        raise UsageError(f"step {step}: weights are not finite ({where}): {_DIVERGED}")


def due(every: int, done: int) -> bool:
    """Is something that happens every `every` steps (0: never) due after `done` steps?"""
    return bool(every) and done % every == 0


def step_name(done: int) -> str:
    """Folder name of an intermediate checkpoint."""
    return f"step-{done:08d}"


def cpu_seconds(since: float) -> float:
    """CPU time since an earlier `time.process_time()`, in seconds."""
    return round(time.process_time() - since, 4)
