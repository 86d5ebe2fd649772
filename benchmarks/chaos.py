"""Random faults over whole rounds: is a row lost or doubled, and does every run finish or say clearly why not?

python benchmarks/chaos.py [--faults 100] [--kinds driver worker …] [--minutes 60] [--seed 0] [--folder DIR] [--compare]

A small world and model. Each run of the command meets one fault at a random step; when one completes, new pictures
arrive and one round more is wanted, so that every fault hits work. At the end an undisturbed run finishes, every input
is looked for, ledgers and files are verified. `--compare` then makes the same rounds without faults and compares bytes.

driver: SIGKILL of the command and all it started. worker, raylet: of one process of Ray. server: of Prefect's.
disk: it fills up (needs the right to mount a tmpfs). clock: it jumps (needs libfaketime). shard: a bit flips.

The last line is one JSON object: faults, rows_lost, rows_doubled, unfinished (runs that ended neither well nor with a
clear error), and sound (what `flywheel fsck` says).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

import psutil
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from curation import pool
from curation.sources import open_source
from flywheel.demo.world import write_world
from flywheel.fsck import fsck
from flywheel.ledger import Ledger
from flywheel.workspace import Workspace, file_digest

PRESET = Path(__file__).with_name("micro.toml")
KINDS = ("driver", "worker", "raylet", "server", "disk", "clock", "shard")
STEPS = ("ingest", "curate", "plan", "collect", "train", "evaluate", "gate", "route", "report")
# Where these faults find something; Ray's own processes do not take a jump of the clock that timers run on.
EXPECTED = {"worker": ("curate",), "raylet": ("curate",), "shard": ("train",), "clock": STEPS[2:]}
LIMIT = 900  # seconds: a run that takes longer hangs
DISK = 2 * 2**30  # bytes
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
NEW = 6  # pictures that arrive when a run has completed
FOLDERS = ("pool", "scores", "shards", "remedies", "checkpoints", "samples")
# What names an event in each ledger.
IDS = {
    "signals": "signal_id",
    "case_events": "event_id",
    "probes": "probe_id",
    "reviews": "event_id",
    "rounds": "round",
    "snapshots": "snapshot",
    "costs": "cost_id",
}


class Command:
    """`flywheel run` in a process group of its own; what it says is read as it comes."""

    def __init__(self, world: World, workspace: Path, *, prefect: bool = False, clock: Path | None = None) -> None:
        command = [sys.executable, "-m", "flywheel.cli", "run", "--source", str(world.source), "--json"]
        command += ["--workspace", str(workspace), "--preset", str(PRESET), "--rounds", str(world.rounds)]
        environment = dict(os.environ)
        if clock:
            environment |= {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock)}
            environment |= {"FAKETIME_CACHE_DURATION": "1"}
        self.process = subprocess.Popen(
            [*command, "--prefect" if prefect else "--no-prefect"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment,
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        self.said.extend(self.process.stderr)

    def reaches(self, step: str) -> bool:
        """Wait for a step to begin; False when the run ends without it."""
        while self.running():
            if any(step in line and line.rstrip().endswith("…") for line in self.said):
                return True
            time.sleep(0.05)
        return False

    def running(self) -> bool:
        """Has it not ended?"""
        return self.process.poll() is None

    def descendant(self, wanted: Callable[[str], bool], rng: random.Random) -> psutil.Process | None:
        """One of its processes by command line, waited for; None when the run ends before there is one."""
        while self.running():
            found = []
            for p in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    found += [p] if wanted(" ".join(p.cmdline())) else []
            if found:
                return rng.choice(found)
            time.sleep(0.3)
        return None

    def kill(self) -> None:
        """SIGKILL to it and all that it started."""
        tree = psutil.Process(self.process.pid).children(recursive=True)
        os.killpg(self.process.pid, signal.SIGKILL)
        for p in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                p.kill()

    def end(self) -> str:
        """finished | clear error | unclear error | hangs"""
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
            return "hangs"
        self._reader.join(10)
        if self.process.returncode == 0:
            return "finished"
        errors = [line for line in self.said if line.startswith("error: ")]
        clear = self.process.returncode == 2 and errors and not any("Traceback" in line for line in self.said)
        return "clear error" if clear else "unclear error"


class World:
    """The source and how many rounds are wanted of it."""

    def __init__(self, folder: Path) -> None:
        self.source, self.rounds = folder / "source", 1
        if not self.source.exists():
            write_world(self.source, seed=0, size="quick")
        self.captions = (self.source / "captions.jsonl").read_text()
        self.cards = sorted(self.source.glob("card-*.png"))
        self.reset()

    def reset(self) -> None:
        """As it was before anything arrived."""
        for path in self.source.glob("new-*.png"):
            path.unlink()
        (self.source / "captions.jsonl").write_text(self.captions)
        self.rounds = 1

    def grow(self) -> None:
        """New pictures, and one round more; equal calls make equal files."""
        lines = []
        for n in range(NEW):
            name = f"new-{self.rounds:03d}-{n}.png"
            border = 20 + self.rounds, 20 + n, 20, 20
            ImageOps.expand(Image.open(self.cards[n]).convert("RGB"), border, "white").save(self.source / name)
            os.utime(self.source / name, (1e9, 1e9))
            lines.append(json.dumps({"file": name, "caption": f"a small shape, number {self.rounds} {n}"}) + "\n")
        with open(self.source / "captions.jsonl", "a") as f:
            f.writelines(lines)
        self.rounds += 1


def disturb(kind: str, world: World, workspace: Path, rng: random.Random) -> dict[str, str] | None:
    """Run, do one fault, see the run's end; None when it ended before the fault came."""
    step = rng.choice(EXPECTED.get(kind, STEPS))
    clock = workspace.parent / "clock" if kind == "clock" else None
    if clock:
        clock.write_text("+0")
    run = Command(world, workspace, prefect=kind == "server", clock=clock)
    hit = False
    with contextlib.ExitStack() as undo:
        if run.reaches(step):
            time.sleep(rng.uniform(0, 3))
            hit = run.running() and _FAULTS[kind](run, workspace, rng, undo)
        end = run.end()
    if not hit:
        return None if end == "finished" else {"fault": "none", "step": step, "end": end, "said": run.said[-1:]}
    end = "killed" if kind == "driver" else end
    if end in ("hangs", "unclear error"):
        (workspace.parent / f"unfinished-{time.time():.0f}.txt").write_text("".join(run.said))
    return {"fault": kind, "step": step, "end": end, "said": "".join(run.said[-1:]).strip()[:160]}


def _driver(run: Command, workspace: Path, rng: random.Random, undo: contextlib.ExitStack) -> bool:
    run.kill()
    return True


def _kill_one(wanted: Callable[[str], bool]) -> Callable[..., bool]:
    def fault(run: Command, workspace: Path, rng: random.Random, undo: contextlib.ExitStack) -> bool:
        victim = run.descendant(wanted, rng)
        if victim:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        return victim is not None

    return fault


def _disk(run: Command, workspace: Path, rng: random.Random, undo: contextlib.ExitStack) -> bool:
    ballast = workspace.parent / "ballast"
    undo.callback(ballast.unlink)
    with open(ballast, "wb") as f, contextlib.suppress(OSError):
        os.posix_fallocate(f.fileno(), 0, max(1, shutil.disk_usage(workspace).free - rng.randrange(200_000)))
    return True


def _clock(run: Command, workspace: Path, rng: random.Random, undo: contextlib.ExitStack) -> bool:
    (workspace.parent / "clock").write_text(f"{rng.choice('+-')}{rng.randint(1, 72)}h")
    return True


def _shard(run: Command, workspace: Path, rng: random.Random, undo: contextlib.ExitStack) -> bool:
    newest = max(workspace.glob("shards/*/manifest.json"), key=lambda p: p.stat().st_mtime)
    path = rng.choice([newest.parent / f["path"] for f in json.loads(newest.read_text())["files"]])
    data = path.read_bytes()
    at = rng.randrange(len(data))
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])

    def restore() -> None:
        named = {f.path for f in fsck(Workspace(workspace)).findings if f.severity == "error"}
        if str(path.relative_to(workspace)) not in named:
            raise AssertionError(f"fsck did not find the flipped bit in {path}")
        path.write_bytes(data)

    undo.callback(restore)
    return True


_FAULTS: dict[str, Callable[..., bool]] = {
    "driver": _driver,
    "worker": _kill_one(lambda line: line.startswith("ray::") and "Agent" not in line),
    "raylet": _kill_one(lambda line: line.split(" ")[0].endswith("/raylet")),
    "server": _kill_one(lambda line: "flows.server_process" in line),
    "disk": _disk,
    "clock": _clock,
    "shard": _shard,
}


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of its own at `folder`; False where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    mounted = shutil.which("mount") and subprocess.run(mount, stderr=subprocess.DEVNULL).returncode == 0
    try:
        yield bool(mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def losses(workspace: Workspace, source: Path) -> tuple[list[str], list[str]]:
    """(inputs that are nowhere, inputs and ledger ids that are somewhere twice)."""
    seen: Counter[str] = Counter()
    for shard in pool.shards(workspace):
        seen.update(pq.read_table(shard.path, columns=["source_uri"])["source_uri"].to_pylist())
    for batch in pool.batches(workspace):
        seen.update(pq.read_table(batch / "quarantine.parquet")["source_uri"].to_pylist())
    lost = [i.uri for i in open_source(source, None).inputs() if not seen[i.uri]]
    twice = [uri for uri, n in seen.items() if n > 1]
    for name, column in IDS.items():
        counts = Counter(str(r[column]) for r in Ledger(workspace, name).rows())
        twice += [f"{name}/{i}" for i, n in counts.items() if n > 1]
    last = Ledger(workspace, "snapshots").rows()[-1]
    if (total := last["admitted"] + last["dropped"] + last["quarantined"]) != len(seen):
        (lost if total < len(seen) else twice).append(f"{len(seen)} inputs, {total} accounted for")
    return lost, twice


def contents(workspace: Path) -> dict[str, str]:
    """SHA-256 of every file that a fault must not change; logs with clock times aside."""
    found = [p for f in FOLDERS for p in (workspace / f).rglob("*") if p.is_file() and p.name != "metrics.jsonl"]
    return {str(p.relative_to(workspace)): file_digest(p) for p in found}


def main() -> None:
    """Disturb, finish, look for every row; then print the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--minutes", type=float, default=1e9, help="no further fault after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="new folder to keep (default: a temporary one)")
    parser.add_argument("--compare", action="store_true", help="make the same rounds undisturbed, compare bytes")
    arguments = parser.parse_args()
    rng, began = random.Random(arguments.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        folder = (arguments.folder or Path(scratch)).resolve()
        mounted = stack.enter_context(small_disk(folder / "disk"))
        missing = {"disk": not mounted, "clock": FAKETIME is None}
        kinds = [k for k in arguments.kinds if not missing.get(k)]
        print("\n".join(f"{k}: left out, see --help" for k in arguments.kinds if missing.get(k)), flush=True)
        world, workspace = World(folder), folder / "disk" / "w"
        seen: list[dict[str, str]] = []
        while len(seen) < arguments.faults and time.monotonic() - began < 60 * arguments.minutes:
            happened = disturb(kinds[len(seen) % len(kinds)], world, workspace, rng)
            if happened:
                seen.append(happened)
                print(f"{len(seen):>4}  {happened}", flush=True)
            if happened is None or happened["end"] == "finished":
                world.grow()
        last = Command(world, workspace)
        ends = [*(h["end"] for h in seen), last.end()]
        if ends[-1] != "finished":
            print("".join(last.said[-20:]), file=sys.stderr)
        lost, twice = losses(Workspace(workspace), world.source)
        sound = fsck(Workspace(workspace)).sound
        same = None
        if arguments.compare:
            wanted, reference = world.rounds, folder / "reference"
            world.reset()
            while Command(world, reference).end() == "finished" and world.rounds < wanted:
                world.grow()
            same = contents(workspace) == contents(reference)
    for (kind, end), n in sorted(Counter((h["fault"], h["end"]) for h in seen).items()):
        print(f"{kind:<10}{end:<16}{n:>4}")
    figures = {
        "faults": sum(h["fault"] != "none" for h in seen),
        "rows_lost": len(lost),
        "rows_doubled": len(twice),
        "unfinished": sum(e in ("hangs", "unclear error") for e in ends) + (ends[-1] != "finished"),
        "rounds": world.rounds,
        "sound": sound,
        "same_bytes": same,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
