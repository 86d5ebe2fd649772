"""One run of the command, and the faults that can strike it while it works."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.faulty_s3 import FAULTS as NETWORK_FAULTS
from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck

STEPS = ("ingest", "curate", "plan", "collect", "train", "evaluate", "gate", "route", "report")
# Steps in which these faults find something to strike.
EXPECTED = {
    "worker": ("curate",),
    "raylet": ("curate",),
    "node": ("curate",),
    "head": ("curate",),
    "shard": ("train",),
    "clock": STEPS[2:],
}
LIMIT = 1800  # seconds: a longer run counts as hanging
_STORE = 80 << 20  # bytes, of a node of a cluster
_LATE = 2.0  # seconds after the start of a step within which a fault strikes
_BURSTS = (3.0, 6.0, 12.0, LIMIT)  # seconds for which S3 fails; the command retries for about half a minute
_ANNOUNCED = re.compile(r"^\[\d+:\d\d\] (?:round \d+: )?(.+) …$")

Rng = random.Random


def clock_library(folder: Path) -> Path | None:
    """Compile `clock.c` into a folder; None without a C compiler."""
    if not (compiler := shutil.which("cc")):
        return None
    library = folder / "clock.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, Path(__file__).with_name("clock.c"), "-ldl"], check=True
    )
    return library


class Network:
    """The network in front of S3: passes requests on or, during a burst of errors, makes some of them fail."""

    def __init__(self, rng: Rng) -> None:
        self._rng, self._until, self._rate, self._faults = rng, 0.0, 0.0, NETWORK_FAULTS

    def __call__(self, method: str, path: str) -> str | None:
        hit = time.monotonic() < self._until and self._rng.random() < self._rate
        return self._rng.choice(self._faults) if hit else None

    def fail(self, seconds: float, rate: float, faults: Sequence[str] = NETWORK_FAULTS) -> None:
        """From now on and for `seconds`, the share `rate` of all requests meets one of the faults."""
        self._until, self._rate, self._faults = time.monotonic() + seconds, rate, faults

    def mend(self) -> None:
        """End the burst."""
        self._until = 0.0


class Nodes:
    """A Ray cluster on this machine: a head without CPUs, and two nodes of one CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _STORE}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._add(), self._add()]
        self.address: str = self._cluster.address

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=_STORE)

    def lose(self, rng: Rng) -> None:
        """Kill one of the two nodes; another one joins."""
        at = rng.randrange(len(self._nodes))
        self._cluster.remove_node(self._nodes[at], allow_graceful=False)
        self._nodes[at] = self._add()

    def lose_head(self) -> None:
        """Kill the head, which knows what the cluster does."""
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)

    def close(self) -> None:
        """End every process of the cluster."""
        self._cluster.shutdown()


@dataclass
class Target:
    """What a run works on: source, workspace and scratch files, and the `network` of a workspace on S3."""

    source: Path
    workspace: str
    scratch: Path
    clock: Path | None = None  # library that shifts the wall clock of a process
    network: Network | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    rounds: int = 1


class Command:
    """`flywheel run` in its own process group; its messages are read as they come."""

    def __init__(
        self,
        target: Target,
        preset: Path,
        *,
        prefect: bool = False,
        clock: bool = False,
        nodes: Nodes | None = None,
    ) -> None:
        command = [sys.executable, "-m", "flywheel.cli", "run", "--source", str(target.source), "--json"]
        command += ["--workspace", target.workspace, "--preset", str(preset), "--rounds", str(target.rounds)]
        environment = {**os.environ, **target.environment}
        self.target, self.nodes = target, nodes
        if nodes:
            environment["RAY_ADDRESS"] = nodes.address
        if clock:
            self.set_clock(0)
            environment |= {"LD_PRELOAD": str(target.clock), "CLOCK_OFFSET": str(target.scratch / "clock")}
        self.process = subprocess.Popen(
            [*command, "--prefect" if prefect else "--no-prefect"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment,
        )
        self.began = time.monotonic()
        self.output: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def set_clock(self, seconds: int) -> None:
        """Shift its wall clock by `seconds`."""
        file = self.target.scratch / "clock"
        file.touch()
        with file.open("r+b") as opened:  # in place, because the library maps it
            opened.write(seconds.to_bytes(8, sys.byteorder, signed=True))

    def _read(self) -> None:
        self.output.extend(self.process.stderr or ())

    @property
    def step(self) -> str:
        """The current step: the last one announced."""
        return self._announced()[-1] if self._announced() else "start"

    def _announced(self) -> list[str]:
        return [match[1] for line in [*self.output] if (match := _ANNOUNCED.match(line))]

    def reaches(self, step: str) -> bool:
        """Wait until a step has begun; False if the run ends, or hangs, before."""
        while self.running() and time.monotonic() - self.began < LIMIT:
            if any(step in announced for announced in self._announced()):
                return True
            time.sleep(0.05)
        return False

    def running(self) -> bool:
        """True until the process ends."""
        return self.process.poll() is None

    def descendant(self, wanted: Callable[[str], bool], rng: Rng) -> psutil.Process | None:
        """Wait for one of its processes, chosen by command line; None if the step ends before there is one."""
        step = self.step
        while self.running() and self.step == step:
            processes = []
            for p in self._tree():
                with contextlib.suppress(psutil.Error):
                    processes += [p] if wanted(" ".join(p.cmdline())) else []
            if processes:
                return rng.choice(processes)
            time.sleep(0.1)
        return None

    def _tree(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def kill(self) -> None:
        """Send SIGKILL to the command and all its processes."""
        tree = self._tree()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for p in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                p.kill()

    def end(self) -> str:
        """Wait for the end of the run: finished | killed | clear error | unclear error | hangs."""
        try:
            self.process.wait(max(0, self.began + LIMIT - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
            return "hangs"
        self._reader.join(10)
        if self.process.returncode in (0, -signal.SIGKILL):
            return "killed" if self.process.returncode else "finished"
        errors = [line for line in self.output if line.startswith("error: ")]
        clear = self.process.returncode == 2 and errors and not any("Traceback" in line for line in self.output)
        return "clear error" if clear else "unclear error"


Fault = Callable[
    [Command, Rng, contextlib.ExitStack], bool
]  # True if it struck; its effects are undone when the run ends


def disturb(run: Command, faults: Sequence[tuple[str, str]], rng: Rng) -> tuple[list[dict[str, str]], str]:
    """Apply faults (kind, step) in this order while the run lasts; returns those that struck, and how it ended."""
    hits: list[dict[str, str]] = []
    with contextlib.ExitStack() as undo:
        undo.callback(run.kill)  # in case this process is stopped
        for kind, step in faults:
            if not run.reaches(step):
                break
            time.sleep(rng.uniform(0, _LATE))
            current = run.step
            if run.running() and FAULTS[kind](run, rng, undo):
                hits.append({"fault": kind, "step": current, "end": "went on"})
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


def _kill_one(wanted: Callable[[str], bool]) -> Fault:
    def fault(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
        victim = run.descendant(wanted, rng)
        if victim:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        return victim is not None

    return fault


def _node(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
    assert run.nodes
    run.nodes.lose(rng)
    return True


def _head(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
    assert run.nodes
    run.nodes.lose_head()
    return True


def _disk(run: Command, rng: Rng, undo: contextlib.ExitStack) -> bool:
    workspace = Path(run.target.workspace)
    ballast = workspace.parent / "ballast"
    undo.callback(ballast.unlink)
    with open(ballast, "wb") as f, contextlib.suppress(OSError):
        os.posix_fallocate(f.fileno(), 0, max(1, shutil.disk_usage(workspace).free - rng.randrange(200_000)))
    return True


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
    network, seconds = run.target.network, rng.choice(_BURSTS)
    undo.callback(network.mend)
    if seconds == LIMIT:
        network.fail(seconds, 1.0, [rng.choice(("dropped", "500", "503"))])
    else:
        network.fail(seconds, rng.uniform(0.2, 1.0))
    return True


FAULTS: dict[str, Fault] = {
    "driver": _driver,
    "machine": _machine,
    "worker": _kill_one(lambda line: line.startswith("ray::") and "Agent" not in line),
    "raylet": _kill_one(lambda line: line.split(" ")[0].endswith("/raylet")),
    "node": _node,
    "head": _head,
    "server": _kill_one(lambda line: "flows.server_process" in line),
    "disk": _disk,
    "clock": _clock,
    "shard": _shard,
    "s3": _s3,
}
LAST = ("driver", "machine", "raylet", "head", "disk", "shard")  # a run does not survive these
