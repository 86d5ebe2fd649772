"""One run of the command, in a folder or on S3, by itself or on a Ray cluster; what it says, and how it ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.faulty_s3 import FAULTS as NETWORK_FAULTS

# What a run announces, in order; `train` and `evaluate` stand for all arms. Before the first one is the start.
STEPS = (
    "start",
    "ingest",
    "held-out suite",
    "curate",
    "plan",
    "advise",
    "collect",
    "review",
    "shard",
    "train",
    "reinforce",
    "fine-tune the enhancer",
    "reinforce the enhancer",
    "distil",
    "assemble",
    "evaluate",
    "gate",
    "route",
    "export",
    "report",
)
LIMIT = 1800  # seconds: a longer run counts as hanging
_LOOK = 0.01  # seconds between two looks at what a run says; some steps take a tenth of a second
TIDY = 15.0  # seconds after the end of a run that was told to stop; alone on a machine, five are promised
_STORE = 80 << 20  # bytes, of a node of a cluster
_ANNOUNCED = re.compile(r"^\[\d+:\d\d\] (?:round \d+: )?(.+) …$")
_TOOK = re.compile(r"^\[\d+:\d\d\] (?:round \d+: )?(.+): (\d+\.\d) s$")

Rng = random.Random
_WARM = multiprocessing.get_context("forkserver")
_WARM.set_forkserver_preload(["benchmarks.warm"])


def step_of(label: str) -> str:
    """The step in `STEPS` that an announced label belongs to; an unknown one belongs to the start."""
    return label if label in STEPS else next((s for s in STEPS if label.startswith(f"{s} ")), "start")


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
        self.failed = 0  # requests

    def __call__(self, method: str, path: str) -> str | None:
        hit = time.monotonic() < self._until and self._rng.random() < self._rate
        self.failed += hit
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
    """What a run works on: source, preset, workspace and scratch files, and the `network` of a workspace on S3."""

    source: Path
    preset: Path
    workspace: str
    scratch: Path
    clock: Path | None = None  # library that shifts the wall clock of a process
    network: Network | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    rounds: int = 1
    lasts: dict[str, float] = field(default_factory=dict)  # step → seconds that it last took


class Command:
    """`flywheel run` in a session of its own; its messages are read as they come.

    It is forked from a process that has imported what a run needs; with Prefect or another clock, started anew.
    """

    def __init__(
        self, target: Target, *, prefect: bool = False, clock: bool = False, nodes: Nodes | None = None
    ) -> None:
        arguments = ["run", "--source", str(target.source), "--json", "--workspace", target.workspace, "--workers", "1"]
        arguments += ["--preset", str(target.preset), "--rounds", str(target.rounds)]
        arguments += ["--prefect" if prefect else "--no-prefect"]
        environment = dict(target.environment) | ({"RAY_ADDRESS": nodes.address} if nodes else {})
        self.target, self.nodes, self.told = target, nodes, list[psutil.Process]()
        self._messages = target.scratch / f"messages-{time.monotonic_ns()}"
        self._messages.touch()
        if clock:
            self.set_clock(0)
            environment |= {"LD_PRELOAD": str(target.clock), "CLOCK_OFFSET": str(target.scratch / "clock")}
        self._poll = self._start(arguments, environment, anew=prefect or clock)
        self.began = time.monotonic()

    def _start(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, anew: bool
    ) -> Callable[[], int | None]:
        """Start it; returns a function that gives its exit status, None while it runs."""
        if anew:
            with open(self._messages, "w") as errors:
                started = subprocess.Popen(
                    [sys.executable, "-m", "flywheel.cli", *arguments],
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                    env=os.environ | environment,
                )
            self.pid = started.pid
            _set_priority(started.pid, _priority())
            return started.poll
        forked = _WARM.Process(target=_begin, args=(arguments, dict(environment), str(self._messages)))
        forked.start()
        self.pid = forked.pid or 0
        return lambda: forked.exitcode

    def set_clock(self, seconds: int) -> None:
        """Shift its wall clock by `seconds`."""
        file = self.target.scratch / "clock"
        file.touch()
        with file.open("r+b") as opened:  # in place, because the library maps it
            opened.write(seconds.to_bytes(8, sys.byteorder, signed=True))

    @property
    def output(self) -> list[str]:
        """The lines of its messages so far."""
        return self._messages.read_text(errors="replace").splitlines()

    @property
    def step(self) -> str:
        """The step that it announced last."""
        return next((step_of(m[1]) for line in reversed(self.output) if (m := _ANNOUNCED.match(line))), "start")

    def reaches(self, step: str) -> bool:
        """Wait until this step, or a later one, has begun; False if the run ends, or hangs, before."""
        while self.running() and time.monotonic() - self.began < LIMIT:
            if STEPS.index(self.step) >= STEPS.index(step):
                return True
            time.sleep(_LOOK)
        return False

    def running(self) -> bool:
        """True until the process ends."""
        return self._poll() is None

    def wait(self, seconds: float) -> None:
        """Wait for its end, or for the next step, so long."""
        until, step = time.monotonic() + seconds, self.step
        while self.running() and self.step == step and time.monotonic() < until:
            time.sleep(0.05)

    def descendant(self, wanted: Callable[[str], bool], rng: Rng) -> psutil.Process | None:
        """Wait for one of its processes, chosen by command line; None if the step ends before there is one."""
        step = self.step
        while self.running() and self.step == step:
            processes = []
            for p in self.tree():
                with contextlib.suppress(psutil.Error):
                    processes += [p] if wanted(" ".join(p.cmdline())) else []
            if processes:
                return rng.choice(processes)
            time.sleep(0.1)
        return None

    def tree(self) -> list[psutil.Process]:
        """Its descendants."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def kill(self) -> None:
        """Send SIGKILL to the command and all its processes."""
        tree = self.tree()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        for p in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                p.kill()

    def end(self) -> str:
        """Wait for the end: finished | killed | stopped | clear error | unclear error | processes left | hangs."""
        while (status := self._poll()) is None:
            if time.monotonic() - self.began > LIMIT:
                self.kill()
                return "hangs"
            time.sleep(0.05)
        lines = self.output
        for match in filter(None, map(_TOOK.match, lines)):
            self.target.lasts[step_of(match[1])] = float(match[2])
        if status in (0, -signal.SIGKILL):
            return "killed" if status else "finished"
        if any("Traceback" in line for line in lines):
            return "unclear error"
        if status in (128 + signal.SIGINT, 128 + signal.SIGTERM) and any("stopped by" in line for line in lines):
            return "processes left" if psutil.wait_procs(self.told, timeout=TIDY)[1] else "stopped"
        return "clear error" if status == 2 and any(line.startswith("error: ") for line in lines) else "unclear error"


def _begin(arguments: Sequence[str], environment: Mapping[str, str], messages: str) -> None:
    """In the forked process: be `flywheel ARGUMENTS`."""
    priority = _priority()
    os.setsid()
    _set_priority(os.getpid(), priority)
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(messages, os.O_WRONLY | os.O_APPEND), 2)
    sys.argv = ["flywheel", *arguments]
    runpy.run_module("flywheel.cli", run_name="__main__", alter_sys=True)


def _priority() -> str:
    """The priority that the scheduler gives this session beside others, empty where it tells none."""
    with contextlib.suppress(OSError):
        return Path("/proc/self/autogroup").read_text().split()[-1]
    return ""


def _set_priority(pid: int, priority: str) -> None:
    """Give a new session the priority of the one that started it."""
    with contextlib.suppress(OSError):
        if priority:
            Path(f"/proc/{pid}/autogroup").write_text(priority)
