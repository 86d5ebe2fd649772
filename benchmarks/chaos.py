"""Random faults over whole rounds: is any row lost or doubled, and does every run finish or end with a clear error?

python benchmarks/chaos.py [--faults 100] [--kinds driver worker …] [--minutes 60] [--seed 0] [--folder DIR] [--compare]

Runs a small world and model in a folder and on an S3 server. Faults strike each run at random steps until one ends it.
After a run completes, new images arrive and one more round is required, so that every fault strikes work in progress.
At the end, an undisturbed run finishes; then every input is looked up, and ledgers and files are verified. `--compare`
also repeats the folder's rounds without faults and compares bytes.

driver: SIGKILL of the command and all its processes. machine: the same, and the local copies of files on S3 are lost.
worker, raylet: SIGKILL of one Ray process. node, head: a cluster of a head and two nodes loses a node, or its head.
server: SIGKILL of the Prefect server. disk: the disk fills up (needs the right to mount a tmpfs). clock: the wall clock
jumps (needs a C compiler). shard: a bit flips. s3: requests fail, for seconds, or for longer than they are retried.

The last line is one JSON object: faults, rows_lost, rows_doubled, unfinished (runs that ended neither well nor with a
clear error), and sound (the verdict of `flywheel fsck`).
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
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

import pyarrow.parquet as pq
from PIL import Image, ImageOps

from benchmarks.faults import (
    EXPECTED,
    FAULTS,
    LAST,
    STEPS,
    Command,
    Network,
    Nodes,
    Target,
    clock_library,
    disturb,
)
from benchmarks.faulty_s3 import environment, faulty, make_bucket, s3_server
from curation.sources import open_source, pool
from flywheel.core.files import file_digest
from flywheel.core.ledger import Ledger
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace
from flywheel.demo.world import write_world
from flywheel.operate.fsck import fsck

PRESET = Path(__file__).with_name("micro.toml")
# Kinds of faults that exist for only one of the two workspaces.
ONLY = {"s3": ("s3", "machine"), "folder": ("disk", "clock", "shard")}
CLUSTER, LOCAL = {"node", "head"}, {"worker", "raylet"}  # faults of a run on two nodes, and of its own Ray
UNCLEAR = ("hangs", "unclear error")
DISK = 3 * 2**30  # bytes
NEW = 6  # images that arrive after a completed run
FOLDERS = ("pool", "scores", "shards", "remedies", "checkpoints", "samples")
# The id column of each ledger.
IDS = {
    "signals": "signal_id",
    "case_events": "event_id",
    "probes": "probe_id",
    "reviews": "event_id",
    "rounds": "round",
    "snapshots": "snapshot",
    "costs": "cost_id",
}


class World:
    """The source of a target, and the images that arrive in it."""

    def __init__(self, target: Target) -> None:
        self.target, self.source = target, target.source
        write_world(self.source, seed=0, size="quick")
        self.captions = (self.source / "captions.jsonl").read_text()
        self.cards = sorted(self.source.glob("card-*.png"))

    def reset(self) -> None:
        """Restore the source as it was before anything arrived."""
        for path in self.source.glob("new-*.png"):
            path.unlink()
        (self.source / "captions.jsonl").write_text(self.captions)
        self.target.rounds = 1

    def grow(self) -> None:
        """Add new images and require one more round. Equal calls write equal files."""
        lines, rounds = [], self.target.rounds
        for n in range(NEW):
            name = f"new-{rounds:03d}-{n}.png"
            border = 20 + rounds, 20 + n, 20, 20
            ImageOps.expand(Image.open(self.cards[n]).convert("RGB"), border, "white").save(self.source / name)
            os.utime(self.source / name, (1e9, 1e9))
            lines.append(json.dumps({"file": name, "caption": f"a small shape, number {rounds} {n}"}) + "\n")
        with open(self.source / "captions.jsonl", "a") as f:
            f.writelines(lines)
        self.target.rounds += 1


def draw(kinds: Collection[str], hits: Counter[str], rng: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """Workspace (folder | s3) and faults (kind, step, in order) of the next run; includes the rarest kind so far."""
    rare = sorted(kinds, key=lambda k: (hits[k], rng.random()))
    place = next((p for p, only in ONLY.items() if rare[0] in only), rng.choice([*ONLY]))
    if place == "s3" and not {"s3", "machine"} & set(kinds):
        place = "folder"
    excluded = {k for p, only in ONLY.items() if p != place for k in only}
    excluded |= LOCAL if rare[0] in CLUSTER else CLUSTER
    possible = [k for k in rare if k not in excluded]
    # The Prefect server takes as long to start as a round takes, so it is rare. A run that survives is disturbed again.
    often = {"server": 0.2, "worker": 0.3, "node": 0.3, "clock": 0.3, "s3": 0.5}
    drawn = [k for k in possible for _ in range(1 if k == "server" else 3) if rng.random() < often.get(k, 0)]
    drawn += [k for k in possible if k in LAST][: rng.random() < 0.7]
    if rare[0] not in drawn:
        drawn.append(rare[0])
    steps = [(k, rng.choice(EXPECTED.get(k, STEPS))) for k in drawn]
    return place, sorted(steps, key=lambda f: (STEPS.index(f[1]), f[0] in LAST))


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small file system at `folder`; yields False if that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    mounted = shutil.which("mount") and subprocess.run(mount, stderr=subprocess.DEVNULL).returncode == 0
    try:
        yield bool(mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def losses(workspace: Workspace, source: Path) -> tuple[list[str], list[str]]:
    """Inputs that are nowhere in the workspace, and inputs and ledger ids that occur twice."""
    rows: Counter[str] = Counter()
    for shard in pool.shards(workspace):
        rows.update(pq.read_table(readable(shard.path), columns=["source_uri"])["source_uri"].to_pylist())
    rows.update(row["source_uri"] for row in pool.quarantined_at_ingest(workspace))
    lost = [i.uri for i in open_source(source, None).inputs() if not rows[i.uri]]
    twice = [uri for uri, n in rows.items() if n > 1]
    for name, column in IDS.items():
        counts = Counter(str(r[column]) for r in Ledger(workspace, name).rows())
        twice += [f"{name}/{i}" for i, n in counts.items() if n > 1]
    last = Ledger(workspace, "snapshots").rows()[-1]
    if (total := last["admitted"] + last["dropped"] + last["quarantined"]) != len(rows):
        (lost if total < len(rows) else twice).append(f"{len(rows)} inputs, {total} accounted for")
    return lost, twice


def contents(workspace: Path) -> dict[str, str]:
    """SHA-256 of every file that a fault must not change, without logs that have clock times."""
    files = [p for f in FOLDERS for p in (workspace / f).rglob("*") if p.is_file() and p.name != "metrics.jsonl"]
    return {str(p.relative_to(workspace)): file_digest(p) for p in files}


def same_undisturbed(world: World) -> bool:
    """Repeat the rounds without faults; True if the files have the same bytes."""
    disturbed, wanted = world.target.workspace, world.target.rounds
    world.reset()
    world.target.workspace = str(world.target.scratch / "reference")
    while Command(world.target, PRESET).end() == "finished" and world.target.rounds < wanted:
        world.grow()
    return contents(Path(disturbed)) == contents(Path(world.target.workspace))


def worlds(folder: Path, rng: random.Random, stack: contextlib.ExitStack) -> dict[str, World]:
    """Two equal worlds: one with a workspace in a folder, one with a workspace on S3 behind a network that can fail."""
    host, port = stack.enter_context(s3_server())
    network = Network(rng)
    address, _ = stack.enter_context(faulty(host, port, network))
    os.environ |= environment(f"http://{host}:{port}")  # this process bypasses the network
    of_run = {"AWS_ENDPOINT_URL": address, "XDG_CACHE_HOME": str(folder / "cache")}
    bucket = make_bucket(host, port, "chaos")
    targets = {
        "folder": Target(folder / "source", str(folder / "disk" / "w"), folder, clock_library(folder)),
        "s3": Target(folder / "source-s3", f"{bucket}/w", folder, None, network, of_run),
    }
    return {place: World(target) for place, target in targets.items()}


def parse() -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100, help="number of faults (default: %(default)s)")
    parser.add_argument(
        "--kinds", nargs="+", choices=[*FAULTS], default=[*FAULTS], help="kinds of faults; default: all"
    )
    parser.add_argument("--minutes", type=float, default=1e9, help="no further fault after this time")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="new folder to keep (default: a temporary one)")
    parser.add_argument("--compare", action="store_true", help="repeat the folder's rounds undisturbed, compare bytes")
    return parser.parse_args()


@dataclass
class Log:
    """The faults that struck (fault, step, end, place), and the end of every run."""

    folder: Path
    began: float
    hits: list[dict[str, str]] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def add(self, place: str, run: Command, hits: Sequence[dict[str, str]], end: str) -> None:
        """Record a run and print its faults; the output of a run that did not end clearly goes into a file."""
        self.ends.append(end)
        for hit in hits:
            self.hits.append(hit | {"place": place})
            line = "".join(run.output[-1:]).strip()[:200] if hit is hits[-1] else ""
            seconds = time.monotonic() - self.began
            print(f"{len(self.hits):>4} {seconds:>6.0f} s  {[*self.hits[-1].values()]} {line}", flush=True)
        if end in UNCLEAR:
            path = self.folder / f"unfinished-{len(self.ends)}.txt"
            path.write_text("".join(run.output))
            print(f"{end}: {path}", flush=True)


def strike(used: Mapping[str, World], kinds: Collection[str], log: Log, rng: random.Random) -> None:
    """Disturb one run; when it completes nevertheless, its world grows."""
    place, drawn = draw(kinds, Counter(h["fault"] for h in log.hits), rng)
    thrown = [k for k, _ in drawn]
    with contextlib.ExitStack() as stack:
        nodes = stack.enter_context(contextlib.closing(Nodes())) if CLUSTER & {*thrown} else None
        run = Command(used[place].target, PRESET, prefect="server" in thrown, clock="clock" in thrown, nodes=nodes)
        hits, end = disturb(run, drawn, rng)
    log.add(place, run, hits, end)
    if end == "finished":
        used[place].grow()


def verify(used: Mapping[str, World], log: Log) -> tuple[list[str], list[str], bool]:
    """Finish both workspaces undisturbed; returns lost inputs, doubled rows, and whether both are sound."""
    lost, twice, sound = [], [], True
    for place, world in used.items():
        last = Command(world.target, PRESET)
        log.ends.append(last.end())
        if log.ends[-1] != "finished":
            print("".join(last.output[-20:]), file=sys.stderr)
        workspace = Workspace(world.target.workspace)
        for names, more in zip((lost, twice), losses(workspace, world.source)):
            names += [f"{place}: {m}" for m in more]
        report = fsck(workspace)
        sound &= report.sound
        print("\n".join(f"{place}: {f}" for f in report.findings if f.severity == "error"), flush=True)
    print("\n".join([*lost, *twice]), flush=True)
    return lost, twice, sound


def main() -> None:
    """Disturb runs, finish them, look up every row; then print the figures as one JSON line."""
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that mounts and processes end, too
    rng, began = random.Random(arguments.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        folder = (arguments.folder or Path(scratch)).resolve()
        disk = stack.enter_context(small_disk(folder / "disk"))
        used, log = worlds(folder, random.Random(arguments.seed), stack), Log(folder, began)
        missing = {"disk": not disk, "clock": used["folder"].target.clock is None}
        kinds = [k for k in arguments.kinds if not missing.get(k)]
        print("\n".join(f"{k}: left out, see --help" for k in arguments.kinds if missing.get(k)), flush=True)
        while len(log.hits) < arguments.faults and time.monotonic() - began < 60 * arguments.minutes:
            strike(used, kinds, log, rng)
        lost, twice, sound = verify(used, log)
        rounds = sum(w.target.rounds for w in used.values())
        same = same_undisturbed(used["folder"]) if arguments.compare else None
    for (kind, place, end), n in sorted(Counter((h["fault"], h["place"], h["end"]) for h in log.hits).items()):
        print(f"{kind:<10}{place:<10}{end:<16}{n:>4}")
    figures = {
        "faults": len(log.hits),
        "rows_lost": len(lost),
        "rows_doubled": len(twice),
        "unfinished": sum(e in UNCLEAR for e in log.ends) + sum(e != "finished" for e in log.ends[-2:]),
        "rounds": rounds,
        "sound": sound,
        "same_bytes": same,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
