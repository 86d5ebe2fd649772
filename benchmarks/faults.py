"""The faults that can strike a run of the command while it works."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from benchmarks.command import LIMIT, Command
from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck

_BURSTS = (2.0, 4.0, 8.0)  # seconds for which S3 fails; the command retries for about half a minute
_GRACE = 10.0  # seconds that a run has to end, until more strikes it
_LEFT = 100_000  # bytes of a disk that is full, at most
_UNKNOWN = (0.02, 0.2, 2.0)  # seconds that a step may take which no run has ended yet

Rng = random.Random
# True if it struck work in progress; its effects are undone when the run ends.
Fault = Callable[[Command, Rng, contextlib.ExitStack], bool]


def disturb(run: Command, faults: Sequence[tuple[str, str]], rng: Rng) -> tuple[list[dict[str, str]], str]:
    """Apply faults (kind, step) in this order while the run lasts; returns those that struck, and how it ended."""
    hits: list[dict[str, str]] = []
    with contextlib.ExitStack() as undo:
        undo.callback(run.kill)  # in case this process is stopped
        for kind, step in faults:
            if not run.reaches(step):
                break
            time.sleep(rng.uniform(0, run.target.lasts.get(step, rng.choice(_UNKNOWN))))
            current = run.step
            if run.running() and FAULTS[kind](run, rng, undo):
                hits.append({"fault": kind, "step": current, "end": "went on"})
                if kind in LAST:
                    run.wait(_GRACE)
        end = run.end()
    if hits:
        hits[-1]["end"] = end
    return hits, end


def _driver(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
    run.kill()
    return True


def _machine(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
    run.kill()
    undo.callback(shutil.rmtree, run.target.environment["XDG_CACHE_HOME"], ignore_errors=True)
    return True


def _probe(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
    """Kill the run once it has drawn a picture of an experiment, and before it has recorded one more."""
    folder, step = Workspace(run.target.workspace).path("probes"), run.step
    known = {str(p) for p in folder.rglob("*.png")} if folder.exists() else set[str]()
    while run.running() and run.step == step:
        if folder.exists() and any(str(p) not in known for p in folder.rglob("*.png")):
            time.sleep(rng.uniform(0, 0.5))
            run.kill()
            return True
        time.sleep(0.02)
    return False


def _stop(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
    run.told = run.tree()
    with contextlib.suppress(ProcessLookupError):
        os.kill(run.pid, rng.choice((signal.SIGINT, signal.SIGTERM)))
        return True
    return False


def _kill_one(wanted: Callable[[str], bool]) -> Fault:
    def fault(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
        victim = run.descendant(wanted, rng)
        if victim:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        return victim is not None

    return fault


def _worker(line: str) -> bool:
    """Whether a command line is that of a process that does a step's work, under Ray or in its place."""
    return "multiprocessing.spawn" in line or (line.startswith("ray::") and "Agent" not in line)


def _node(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
    if run.nodes is None or run.step != "curate":
        return False
    run.nodes.lose(rng)
    return True


def _head(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
    if run.nodes is None or run.step != "curate":
        return False
    run.nodes.lose_head()
    return True


def _disk(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
    disk = Path(run.target.workspace).parent
    undo.callback((disk / "ballast").unlink, missing_ok=True)
    left = rng.randrange(_LEFT)
    with open(disk / "ballast", "wb") as f:
        for _ in range(100):  # the run writes meanwhile
            with contextlib.suppress(OSError):
                os.posix_fallocate(f.fileno(), 0, max(1, f.seek(0, 2) + shutil.disk_usage(disk).free - left))
            if shutil.disk_usage(disk).free < _LEFT:
                return True
    return False


def _clock(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
    run.set_clock(rng.choice((-1, 1)) * rng.randint(1, 72) * 3600)
    return True


def _shard(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
    workspace = Path(run.target.workspace)
    newest = max(workspace.glob("shards/*.json"), key=lambda p: p.stat().st_mtime)
    path = rng.choice([newest.parent / f["path"] for f in json.loads(newest.read_text())["files"]])
    data = path.read_bytes()
    at = rng.randrange(len(data))
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])

    def restore() -> None:
        damaged = {f.path for f in fsck(Workspace(workspace)).findings if f.severity == "error"}
        if str(path.relative_to(workspace)) not in damaged:
            raise AssertionError(f"fsck did not find the flipped bit in {path}")
        path.write_bytes(data)

    undo.callback(restore)
    return True


def _s3(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
    """A burst; it counts if a request failed. While it lasts, nothing else strikes."""
    network, seconds = run.target.network, rng.choice(_BURSTS)
    if network is None:
        return False
    undo.callback(network.mend)
    before, until = network.failed, time.monotonic() + seconds
    network.fail(seconds, rng.uniform(0.2, 1.0))
    while run.running() and time.monotonic() < until:
        time.sleep(0.05)
    return network.failed > before


def _outage(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
    network = run.target.network
    if network is None:
        return False
    undo.callback(network.mend)
    before = network.failed
    network.fail(LIMIT, 1.0, [rng.choice(("dropped", "500", "503"))])
    while run.running() and network.failed == before:
        time.sleep(0.05)
    return network.failed > before


FAULTS: dict[str, Fault] = {
    "driver": _driver,
    "machine": _machine,
    "stop": _stop,
    "probe": _probe,
    "trainer": _kill_one(lambda line: "training.worker" in line),
    "worker": _kill_one(_worker),
    "node": _node,
    "head": _head,
    "server": _kill_one(lambda line: "flows.server_process" in line),
    "disk": _disk,
    "clock": _clock,
    "shard": _shard,
    "s3": _s3,
    "outage": _outage,
}
# A run rarely survives these.
LAST = ("driver", "machine", "stop", "probe", "trainer", "head", "disk", "shard", "outage")
