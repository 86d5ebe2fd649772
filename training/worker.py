"""Training in child processes: `python -m training.worker` does the job described on its input.

Jobs run in parallel, each in as many processes as it is given, which train one model. A worker exits when its parent
does, whatever the reason, so a restarted run never meets a leftover of its own.

Its output is JSON lines: what it has to say, then its checkpoint or its error.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
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


@dataclass(frozen=True, kw_only=True)
class Job:
    """A call that trains: `call` ("module:function") with plain `arguments` takes `steps` steps in `out_dir`.

    It returns a `Checkpoint`, resumes if it is called again, and trains one model where torchrun's variables are set.
    """

    call: str
    out_dir: str
    steps: int
    arguments: Mapping[str, Any]


def train_all(
    runs: Sequence[TrainingRun],
    *,
    threads: int = 1,
    processes: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Path]:
    """Train all runs in parallel, each in `processes` processes of `threads` CPU threads; returns their checkpoints.

    say: gets each sentence that a run has to say, such as a share that its data cannot give, once for all runs.
    Errors: the first failure, as `UsageError` if the user can fix it; the other runs are stopped.
    """
    jobs = [
        Job(call="training.worker:trained", out_dir=run.out_dir, steps=run.steps, arguments=asdict(run)) for run in runs
    ]

    def shown() -> None:
        if progress:
            done = [progress_of(run) for run in runs]
            progress(sum(d for d, _ in done), sum(r.steps for r in runs), "loss " + ", ".join(d for _, d in done))

    return _do(jobs, threads, processes, shown, say)


def train_job(
    job: Job,
    *,
    threads: int = 1,
    processes: int = 1,
    progress: Callable[[int, int, Mapping[str, Any]], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Do one job; returns its checkpoint.

    progress: (done, steps, metrics of the last step). say, errors: as `train_all`.
    """

    def shown() -> None:
        line = _last_line(job.out_dir)
        if progress and line is not None:
            progress(line["step"], job.steps, line)

    (path,) = _do([job], threads, processes, shown, say)
    return path


def _do(
    jobs: Sequence[Job],
    threads: int,
    processes: int,
    shown: Callable[[], None],
    say: Callable[[str], None] | None = None,
) -> list[Path]:
    """Do jobs in parallel; the processes of a job get GPUs of their own where there are enough."""
    ports = [_free_port() if processes > 1 else 0 for _ in jobs]
    workers = [
        _Worker(_start(job, threads, rank, processes, number * processes + rank, ports[number]))
        for number, job in enumerate(jobs)
        for rank in range(processes)
    ]
    said: set[str] = set()

    def tell() -> None:
        for note in (note for w in workers for note in list(w.notes)):
            if say and note not in said:
                say(note)
            said.add(note)

    try:
        while any(w.process.poll() is None for w in workers):
            _raise_failure(workers)
            tell()
            shown()
            time.sleep(_POLL_SECONDS)
        _raise_failure(workers)
        reports = [w.report() for w in workers]
        tell()
        return [Path(report["checkpoint"]) for report in reports[::processes]]
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
            try:
                written = json.loads(line)
            except ValueError:  # a library's, or half a line of a process that was killed
                written = None
            if not isinstance(written, dict):
                self.notes.append(line.strip())
            elif "note" in written:
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(job: Job, threads: int, rank: int, size: int, local: int, port: int) -> subprocess.Popen[str]:
    # Threads that spin while they wait for each other cost minutes on a busy machine.
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    environment |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(local)}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    worker = subprocess.Popen(
        [sys.executable, "-m", "training.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=Path(__file__).resolve().parents[1],  # where `training` can be imported, whatever the user's folder
        text=True,
    )
    stdin = _pipe(worker.stdin)
    stdin.write(json.dumps(asdict(job)) + "\n")
    stdin.flush()  # and stays open: its end tells the worker that the parent is gone
    return worker


def _pipe(stream: IO[str] | None) -> IO[str]:
    """A worker's stream."""
    if stream is None:
        raise ValueError("a worker is started with pipes")
    return stream


def _raise_failure(workers: Sequence[_Worker]) -> None:
    """Raise what a worker has failed with: one that was killed first, as others then only lose their connection."""
    failed = [w for w in workers if w.process.poll() not in (None, 0)]
    if failed:
        raise _failure(min(failed, key=lambda w: w.process.returncode))


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
        module, _, name = report["usage"].partition(":")
        kind: type[UsageError] = getattr(import_module(module), name)
        return kind(report["error"])
    failure = RuntimeError(f"training failed: {report['error']}")
    failure.add_note(report["trace"])  # printed where no handler turns the error into a sentence
    return failure


def progress_of(run: TrainingRun) -> tuple[int, str]:
    """(steps done, last loss with its stage) from the tail of the run's metrics."""
    line = _last_line(run.out_dir)
    return (0, "–") if line is None else (line["step"], f"{line['loss']:.3f} ({line.get('stage', '–')})")


def _last_line(out_dir: str) -> dict[str, Any] | None:
    """The metrics of the last step, from their tail."""
    path = Path(out_dir, "metrics.jsonl")
    if not path.exists():
        return None
    with open(path, "rb") as f:
        f.seek(max(0, path.stat().st_size - 4096))
        lines = f.read().splitlines()
    for line in reversed(lines):
        try:
            metrics: dict[str, Any] = json.loads(line)
            return metrics
        except ValueError:
            continue  # a line still being written, or one cut off at its start
    return None


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


def called(call: str, **arguments: Any) -> Checkpoint:
    """What `call` ("module:function") returns."""
    module, _, name = call.partition(":")
    checkpoint: Checkpoint = getattr(import_module(module), name)(**arguments)
    return checkpoint


def trained(**values: Any) -> Checkpoint:
    """Train the run that `values` describe."""
    return train_run(TrainingRun(**values))


def main() -> None:
    """Read a job from the first line of standard input, do it, print what it says and its end as JSON lines."""
    job = Job(**json.loads(sys.stdin.readline()))
    logging.getLogger().addHandler(_Notes(logging.WARNING))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        checkpoint = called(job.call, **job.arguments)
    except Exception as caught:  # noqa: BLE001 - the parent raises it
        error = environment_error(caught) or caught
        usage = f"{type(error).__module__}:{type(error).__name__}" if isinstance(error, UsageError) else ""
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
