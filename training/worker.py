"""Training runs in parallel child processes: `python -m training.worker` trains the run described on its input.

Its output is JSON lines: what it has to say, then its checkpoint or its error.

A worker exits when its parent does, whatever the reason, so a restarted run never meets a leftover of its own.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from flywheel.core.environment import environment_error
from flywheel.core.errors import UsageError
from flywheel.core.storage import located

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint

_POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """Arguments of `training.phase.train` as plain values. `sources`: keyword arguments of each `MixSource`."""

    out_dir: str
    sources: Sequence[Mapping[str, Any]]
    recipe: Mapping[str, Any]
    steps: int
    seed: int
    init: str | None = None
    extend: str | None = None


def train_all(
    runs: Sequence[TrainingRun],
    *,
    threads: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Path]:
    """Train all runs in parallel, each with `threads` CPU threads; returns their final checkpoints.

    say: gets each sentence that a run has to say, such as a share that its data cannot give, once for all runs.
    Errors: the first failure, as `UsageError` if the user can fix it; the other runs are stopped.
    """
    workers = [_Worker(_start(run, threads)) for run in runs]
    said: set[str] = set()

    def tell() -> None:
        for note in [note for w in workers for note in list(w.notes) if note not in said]:
            if say and note not in said:
                say(note)
            said.add(note)

    try:
        while any(w.process.poll() is None for w in workers):
            if failed := [w for w in workers if w.process.poll() not in (None, 0)]:
                raise _failure(failed[0])
            tell()
            if progress:
                done = [progress_of(run) for run in runs]
                progress(sum(d for d, _ in done), sum(r.steps for r in runs), "loss " + ", ".join(d for _, d in done))
            time.sleep(_POLL_SECONDS)
        if failed := [w for w in workers if w.process.returncode]:
            raise _failure(failed[0])
        reports = [w.report() for w in workers]
        tell()
        return [Path(report["checkpoint"]) for report in reports]
    finally:
        for w in workers:
            w.close()


@dataclass
class _Worker:
    """A started process, and what it has written so far, which a thread reads."""

    process: subprocess.Popen[str]
    notes: list[str] = field(default_factory=list)
    _report: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in _pipe(self.process.stdout):
            written = json.loads(line)
            if "note" in written:
                self.notes.append(written["note"])
            else:
                self._report = written

    def report(self) -> dict[str, Any]:
        """The last line of a process that has ended; empty if it was ended before it could write one."""
        self._reader.join()
        return self._report

    def close(self) -> None:
        """End the process, if it runs."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        _pipe(self.process.stdin).close()
        _pipe(self.process.stdout).close()


def _start(run: TrainingRun, threads: int) -> subprocess.Popen[str]:
    # Threads that spin while they wait for each other cost minutes on a busy machine.
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    worker = subprocess.Popen(
        [sys.executable, "-m", "training.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=Path(__file__).resolve().parents[1],  # where `training` can be imported, whatever the user's folder
        text=True,
    )
    stdin = _pipe(worker.stdin)
    stdin.write(json.dumps(asdict(run)) + "\n")
    stdin.flush()  # and stays open: its end tells the worker that the parent is gone
    return worker


def _pipe(stream: IO[str] | None) -> IO[str]:
    """A worker's stream."""
    if stream is None:
        raise ValueError("a worker is started with pipes")
    return stream


def _failure(worker: _Worker) -> Exception:
    report, status = worker.report(), worker.process.returncode
    if not report and status < 0:
        name = signal.Signals(-status).name
        why = "; the system does that when memory is short" if name == "SIGKILL" else ""
        return UsageError(
            f"a training process was ended by {name}{why}: run again, it resumes from its last checkpoint"
        )
    if not report:
        return RuntimeError(f"a training process ended with status {status}: run again to resume")
    if report["usage"]:
        return UsageError(report["error"])
    failure = RuntimeError(f"training failed: {report['error']}")
    failure.add_note(report["trace"])  # printed where no handler turns the error into a sentence
    return failure


def progress_of(run: TrainingRun) -> tuple[int, str]:
    """(steps done, last loss with its stage) from the tail of the run's metrics."""
    path = Path(run.out_dir, "metrics.jsonl")
    if not path.exists():
        return 0, "–"
    with open(path, "rb") as f:
        f.seek(max(0, path.stat().st_size - 4096))
        lines = f.read().splitlines()
    for line in reversed(lines):
        try:
            metrics = json.loads(line)
            return metrics["step"], f"{metrics['loss']:.3f} ({metrics.get('stage', '–')})"
        except ValueError:
            continue  # a line still being written, or one cut off at its start
    return 0, "–"


def train_run(run: TrainingRun, **options: Any) -> Checkpoint:
    """Train a run in this process; `options` are passed on to `training.phase.train`."""
    from training.data.plan import MixSource
    from training.phase import train
    from training.recipes import from_dict

    return train(
        Path(run.out_dir),
        [MixSource(**{**s, "manifest": located(s["manifest"])}) for s in run.sources],
        from_dict(run.recipe),
        init=located(run.init) if run.init else None,
        extend=located(run.extend) if run.extend else None,
        seed=run.seed,
        steps=run.steps,
        **options,
    )


def main() -> None:
    """Read a run from the first line of standard input, train it, print what it says and its end as JSON lines."""
    run = TrainingRun(**json.loads(sys.stdin.readline()))
    logging.getLogger().addHandler(_Notes(logging.WARNING))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        checkpoint = train_run(run)
    except Exception as caught:  # noqa: BLE001 - the parent raises it
        error = environment_error(caught) or caught
        usage = isinstance(error, UsageError)
        print(json.dumps({"error": str(error), "usage": usage, "trace": traceback.format_exc()}), flush=True)
        sys.exit(2 if usage else 1)
    print(json.dumps({"checkpoint": str(checkpoint.path)}), flush=True)


class _Notes(logging.Handler):
    """Warnings as JSON lines on standard output."""

    def emit(self, record: logging.LogRecord) -> None:
        print(json.dumps({"note": record.getMessage()}), flush=True)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
