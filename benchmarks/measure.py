"""Measure CPU-seconds and memory of process trees, and make distinct copies of photographs to measure on."""

from __future__ import annotations

import io
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from PIL import Image

PEERS = Path(__file__).parent / "peers"
_POLL = 0.1  # seconds between samples of a whole command
_IDLE = 5.0  # seconds for which an idle tree is measured after its start


@dataclass(frozen=True)
class Passes:
    """Cost of each pass over a folder: CPU-seconds of the tree, wall seconds. The first pass is the start-up.

    idle: CPU-seconds per wall second that the idle tree uses (daemons); `cpu` includes them.
    """

    cpu: tuple[float, ...]
    wall: tuple[float, ...]
    idle: float = 0.0

    def busy(self, number: int) -> float:
        """CPU-seconds of a pass, minus the idle use of the daemons in that time."""
        return self.cpu[number] - self.idle * self.wall[number]


def passes(command: Sequence[str], scratch: Path) -> Passes:
    """Run a script of `peers/` that marks its passes. Errors: `RuntimeError` with the end of its log if it fails."""
    home = {"HOME": str(scratch / "home"), "HF_HOME": str(scratch / "home")}
    environment = os.environ | {"PYTHONPATH": str(PEERS.parents[1]), "OMP_NUM_THREADS": "1"} | home
    log = scratch / "log"
    with open(log, "w") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise RuntimeError("the script has no pipes")
    cpu, wall, idle = [0.0], [time.perf_counter()], 0.0
    for line in stdout:
        if line.strip() == "mark":
            cpu.append(_tree_cpu(process.pid))
            wall.append(time.perf_counter())
            if len(cpu) == 2:
                time.sleep(_IDLE)
                after = _tree_cpu(process.pid)
                idle = (after - cpu[1]) / (time.perf_counter() - wall[1])
                cpu[1], wall[1] = after, time.perf_counter()
            stdin.write("\n")
            stdin.flush()
    if process.wait():
        raise RuntimeError(f"{' '.join(command[:2])}: {log.read_text()[-2000:]}")
    return Passes(_steps(cpu), _steps(wall), idle)


def _steps(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(after - before for before, after in zip(values[:-1], values[1:]))


def marginal(runs: Sequence[Passes], small: int, large: int) -> tuple[float, float]:
    """(pictures per CPU-second, fixed CPU-seconds) of four passes: start-up, warm-up, `small` and `large` pictures.

    The fastest of the repeats counts, because other work on the same cores only adds time. Daemons are left out: they
    cost by the second, not by the picture, and on a busy machine the seconds are due to other processes.
    """
    few, many = (min(p.busy(n) for p in runs) for n in (2, 3))
    each = max(many - few, 1e-9) / (large - small)
    return 1 / each, min(p.cpu[0] + p.cpu[1] for p in runs) + max(0.0, few - small * each)


def _tree_cpu(pid: int) -> float:
    root = psutil.Process(pid)
    return sum(sum(p.cpu_times()[:4]) for p in [root, *root.children(recursive=True)])


@dataclass(frozen=True)
class Cost:
    """A whole command: CPU-seconds of its tree, wall seconds, peak memory in GiB, and bytes that it left.

    Memory is the sum of resident sets, with shared pages counted in each.
    """

    cpu: float
    wall: float
    gib: float
    written: int = 0


def whole(command: Sequence[str | Path], out: Path | None = None, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command; out: folder that it writes. Errors: `RuntimeError` with the end of its output if it fails."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen([str(c) for c in command], stdout=log, stderr=log, env=environment)
        watched = Watched(process)
        while process.poll() is None:
            watched.look()
            time.sleep(_POLL)
        if process.returncode:
            log.seek(0)
            said = log.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(map(str, command))} failed: {said}")
    written = sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) if out and out.exists() else 0
    return Cost(watched.cpu, time.perf_counter() - began, watched.peak / 2**30, written)


def peak_gib(command: Sequence[str]) -> float:
    """Peak memory of a command's process tree, GiB. Errors: as `whole`."""
    return whole(command, environment=os.environ | {"PYTHONPATH": str(PEERS.parents[1])}).gib


class Watched:
    """What a process tree has used, as far as it was looked at. peak: bytes of all its processes at once."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._cpu, self.peak = process, dict[tuple[int, float], float](), 0

    @property
    def cpu(self) -> float:
        """CPU-seconds."""
        return sum(self._cpu.values())

    def look(self) -> int:
        """Look at all processes; the bytes that the first one holds."""
        memory = []
        for p in _tree(self._process):
            try:
                times = p.cpu_times()
                self._cpu[p.pid, p.create_time()] = times.user + times.system
                memory.append(p.memory_info().rss)
            except psutil.Error:
                continue
        self.peak = max(self.peak, sum(memory))
        return memory[0] if memory else 0


def _tree(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def tile(photos: Sequence[Path], folder: Path, count: int, pixels: int | None = None) -> Path:
    """`count` distinct JPEGs: the photographs repeated, each with its own comment, enlarged to `pixels` if given."""
    folder.mkdir(parents=True)
    enlarged: dict[Path, bytes] = {}
    for number in range(count):
        path = photos[number % len(photos)]
        if pixels and path not in enlarged:
            enlarged[path] = _enlarged(path, pixels)
        data = enlarged[path] if pixels else path.read_bytes()
        comment = f"copy {number}".encode()
        marked = data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
        (folder / f"{number:06d}.jpg").write_bytes(marked)
    return folder


def _enlarged(path: Path, pixels: int) -> bytes:
    out = io.BytesIO()
    with Image.open(path) as picture:
        scale = (pixels / (picture.width * picture.height)) ** 0.5
        size = (round(picture.width * scale), round(picture.height * scale))
        picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=92)
    return out.getvalue()
