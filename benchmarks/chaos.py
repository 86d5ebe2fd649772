"""Random faults over whole rounds: is a row lost or doubled, and does every run finish or say clearly why not?

python benchmarks/chaos.py [--faults 100] [--kinds driver worker …] [--minutes 60] [--seed 0] [--folder DIR] [--compare]

A small world and model, in a folder and on an S3 server. Each run of the command meets faults at random steps until
one ends it; when one completes, new pictures arrive and one round more is wanted, so that every fault hits work. At the
end an undisturbed run finishes, every input is looked for, ledgers and files are verified. `--compare` then makes the
folder's rounds without faults and compares bytes.

driver: SIGKILL of the command and all it started. machine: and its copies of what is on S3 are lost. worker, raylet: of
one process of Ray. server: of Prefect's. disk: it fills up (needs the right to mount a tmpfs). clock: it jumps (needs
a C compiler). shard: a bit flips. s3: requests fail, for seconds, or for longer than they are repeated.

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
import time
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

import pyarrow.parquet as pq
from PIL import Image, ImageOps

from benchmarks.faults import EXPECTED, FAULTS, LAST, STEPS, Command, Network, Target, clock_library, disturb
from benchmarks.faulty_s3 import environment, faulty, make_bucket, s3_server
from curation.sources import open_source, pool
from flywheel.core.files import file_digest
from flywheel.core.ledger import Ledger
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace
from flywheel.demo.world import write_world
from flywheel.operate.fsck import fsck

PRESET = Path(__file__).with_name("micro.toml")
# Kinds that only one of the two workspaces knows.
ONLY = {"s3": ("s3", "machine"), "folder": ("disk", "clock", "shard")}
DISK = 3 * 2**30  # bytes
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


class World:
    """The source of a target: what arrives in it."""

    def __init__(self, target: Target) -> None:
        self.target, self.source = target, target.source
        write_world(self.source, seed=0, size="quick")
        self.captions = (self.source / "captions.jsonl").read_text()
        self.cards = sorted(self.source.glob("card-*.png"))

    def reset(self) -> None:
        """As it was before anything arrived."""
        for path in self.source.glob("new-*.png"):
            path.unlink()
        (self.source / "captions.jsonl").write_text(self.captions)
        self.target.rounds = 1

    def grow(self) -> None:
        """New pictures, and one round more; equal calls make equal files."""
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
    """(folder | s3, faults as kind and step, in order) of the next run: what has hit least is among them."""
    rare = sorted(kinds, key=lambda k: (hits[k], rng.random()))
    place = next((p for p, only in ONLY.items() if rare[0] in only), rng.choice([*ONLY]))
    if place == "s3" and not {"s3", "machine"} & set(kinds):
        place = "folder"
    elsewhere = {k for p, only in ONLY.items() if p != place for k in only}
    here = [k for k in rare if k not in elsewhere]
    # Prefect's server takes as long to start as a round takes; a run that goes on is disturbed again and again.
    often = {"server": 0.2, "worker": 0.3, "clock": 0.3, "s3": 0.5}
    drawn = [k for k in here for _ in range(1 if k == "server" else 3) if rng.random() < often.get(k, 0)]
    drawn += [k for k in here if k in LAST][: rng.random() < 0.7]
    if rare[0] not in drawn:
        drawn.append(rare[0])
    steps = [(k, rng.choice(EXPECTED.get(k, STEPS))) for k in drawn]
    return place, sorted(steps, key=lambda f: (STEPS.index(f[1]), f[0] in LAST))


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
        seen.update(pq.read_table(readable(shard.path), columns=["source_uri"])["source_uri"].to_pylist())
    seen.update(row["source_uri"] for row in pool.quarantined_at_ingest(workspace))
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


def same_undisturbed(world: World) -> bool:
    """Do the same rounds without faults end in the same bytes?"""
    disturbed, wanted = world.target.workspace, world.target.rounds
    world.reset()
    world.target.workspace = str(world.target.scratch / "reference")
    while Command(world.target, PRESET).end() == "finished" and world.target.rounds < wanted:
        world.grow()
    return contents(Path(disturbed)) == contents(Path(world.target.workspace))


def worlds(folder: Path, rng: random.Random, stack: contextlib.ExitStack) -> dict[str, World]:
    """The same world twice: with a workspace in a folder, and with one on S3 behind a network that can fail."""
    host, port = stack.enter_context(s3_server())
    network = Network(rng)
    address, _ = stack.enter_context(faulty(host, port, network))
    os.environ |= environment(f"http://{host}:{port}")  # this process looks past the network
    seen_by_run = {"AWS_ENDPOINT_URL": address, "XDG_CACHE_HOME": str(folder / "cache")}
    bucket = make_bucket(host, port, "chaos")
    found = {
        "folder": Target(folder / "source", str(folder / "disk" / "w"), folder, clock_library(folder)),
        "s3": Target(folder / "source-s3", f"{bucket}/w", folder, None, network, seen_by_run),
    }
    return {place: World(target) for place, target in found.items()}


def main() -> None:
    """Disturb, finish, look for every row; then print the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--kinds", nargs="+", choices=[*FAULTS], default=[*FAULTS])
    parser.add_argument("--minutes", type=float, default=1e9, help="no further fault after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="new folder to keep (default: a temporary one)")
    parser.add_argument("--compare", action="store_true", help="make the folder's rounds undisturbed, compare bytes")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was mounted and started ends, too
    rng, began = random.Random(arguments.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        folder = (arguments.folder or Path(scratch)).resolve()
        disk = stack.enter_context(small_disk(folder / "disk"))
        used = worlds(folder, random.Random(arguments.seed), stack)
        missing = {"disk": not disk, "clock": used["folder"].target.clock is None}
        kinds = [k for k in arguments.kinds if not missing.get(k)]
        print("\n".join(f"{k}: left out, see --help" for k in arguments.kinds if missing.get(k)), flush=True)
        hits: list[dict[str, str]] = []
        ends: list[str] = []
        while len(hits) < arguments.faults and time.monotonic() - began < 60 * arguments.minutes:
            place, drawn = draw(kinds, Counter(h["fault"] for h in hits), rng)
            thrown = [k for k, _ in drawn]
            run = Command(used[place].target, PRESET, prefect="server" in thrown, clock="clock" in thrown)
            met, end = disturb(run, drawn, rng)
            ends.append(end)
            for hit in met:
                hits.append(hit | {"place": place})
                said = "".join(run.said[-1:]).strip()[:200] if hit is met[-1] else ""
                print(f"{len(hits):>4} {time.monotonic() - began:>6.0f} s  {[*hits[-1].values()]} {said}", flush=True)
            if end in ("hangs", "unclear error"):
                log = folder / f"unfinished-{len(ends)}.txt"
                log.write_text("".join(run.said))
                print(f"{end}: {log}", flush=True)
            if end == "finished":
                used[place].grow()
        lost, twice, sound = [], [], True
        for place, world in used.items():
            last = Command(world.target, PRESET)
            ends.append(last.end())
            if ends[-1] != "finished":
                print("".join(last.said[-20:]), file=sys.stderr)
            workspace = Workspace(world.target.workspace)
            for found, more in zip((lost, twice), losses(workspace, world.source)):
                found += [f"{place}: {m}" for m in more]
            report = fsck(workspace)
            sound &= report.sound
            print("\n".join(f"{place}: {f}" for f in report.findings if f.severity == "error"), flush=True)
        print("\n".join([*lost, *twice]), flush=True)
        rounds = sum(w.target.rounds for w in used.values())
        same = same_undisturbed(used["folder"]) if arguments.compare else None
    for (kind, place, end), n in sorted(Counter((h["fault"], h["place"], h["end"]) for h in hits).items()):
        print(f"{kind:<10}{place:<10}{end:<16}{n:>4}")
    figures = {
        "faults": len(hits),
        "rows_lost": len(lost),
        "rows_doubled": len(twice),
        "unfinished": sum(e in ("hangs", "unclear error") for e in ends) + sum(e != "finished" for e in ends[-2:]),
        "rounds": rounds,
        "sound": sound,
        "same_bytes": same,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
