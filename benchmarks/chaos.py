"""Random faults over whole rounds: is any row lost or doubled, and does every run finish or end with a clear error?

python benchmarks/chaos.py [--faults 100] [--kinds driver worker …] [--minutes 60] [--seed 0] [--folder DIR] [--compare]

Runs a small world and model in a folder and on an S3 server. Faults strike a run at random moments of its steps until
one ends it; the next run goes on from there. After a run completes, new images arrive, a person sends cases to all
tracks, and one more round is required, so that every fault strikes work in progress. At the end, an undisturbed run
finishes; then every input is looked up, and ledgers and files are verified. `--compare` also repeats the rounds of
both without faults, in a folder, and compares bytes.

driver: SIGKILL of the command and all its processes. machine: the same, and the local copies of files on S3 are lost.
stop: SIGINT or SIGTERM; no process may be left. probe: SIGKILL amid the experiments that route cases. trainer: SIGKILL
of a training process. worker: SIGKILL of a process that scores or encodes. node, head: a cluster of a head and two
nodes loses a node, or its head. server: SIGKILL of the Prefect server. disk: the disk fills up (needs the right to
mount a tmpfs). clock: the wall clock jumps (needs a C compiler). shard: a bit flips. s3: requests fail for seconds.
outage: S3 stays away.

The last line is one JSON object: faults, rows_lost, rows_doubled, unfinished (runs that ended neither well nor with a
clear error), and sound (the verdict of `flywheel fsck`). With `--folder`, each call adds a session of its own, with new
workspaces that it verifies; `total` sums over all sessions of the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
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
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

import pyarrow.parquet as pq

from benchmarks.command import STEPS, Command, Network, Nodes, Target, clock_library
from benchmarks.faults import FAULTS, LAST, disturb
from benchmarks.faulty_s3 import environment, faulty, make_bucket, s3_server
from benchmarks.small_world import SmallWorld
from curation.sources import open_source, pool
from flywheel.core.ledger import Ledger
from flywheel.core.storage import located, readable
from flywheel.core.workspace import Workspace
from flywheel.operate.fsck import fsck

# How often a kind is drawn beside the others. A Prefect server, a clock and a cluster take long to start.
SHARES = {"driver": 6, "s3": 6, "machine": 3, "stop": 3, "worker": 3, "disk": 3, "node": 2, "clock": 2, "trainer": 2}
SHARES |= {"probe": 2, "outage": 2, "head": 1, "server": 1, "shard": 1}
# Kinds that need one of the two workspaces; the steps in which they find something to strike, if not in all.
PLACES = {"s3": ("s3", "outage", "machine"), "folder": ("disk", "clock", "shard", "server", "node", "head")}
ONLY = {"worker": "curate", "node": "curate", "head": "curate", "trainer": "train"}
ONLY |= {"shard": "train", "server": "train", "probe": "route"}
CLUSTER = ("node", "head")
UNCLEAR = ("hangs", "unclear error", "processes left")
AHEAD = 3  # steps, from the one in which a run ended on, among which the next run is struck: in the rarest one
FREE = 3  # steps at the end of a round: a run that was not struck before them, or goes on from them, may finish
DISK = 3 * 2**30  # bytes
FOLDERS = ("pool", "scores", "shards", "suite", "remedies", "checkpoints", "enhancers", "samples", "probes")
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


@dataclass
class Place:
    """A world, what runs work on in it, and the step at which the last run ended."""

    world: SmallWorld
    target: Target
    at: int = 0  # index in `STEPS`

    def grow(self) -> None:
        """Let images arrive and a person answer, and require one more round."""
        self.world.grow(Workspace(self.target.workspace))
        self.target.rounds, self.at = self.world.round, 0


Drawn = list[tuple[str, str]]  # kind and step of each fault, in order


def draw(used: dict[str, Place], kinds: Collection[str], log: Log, rng: random.Random) -> tuple[str, Drawn]:
    """Workspace (folder | s3) and faults of the next run; among them the kind that is rarest beside its share."""

    def possible(kind: str, place: str, at: int | None = None) -> bool:
        at = used[place].at if at is None else at
        if any(kind in only for other, only in PLACES.items() if other != place):
            return False
        return kind in kinds and at <= STEPS.index(ONLY.get(kind, STEPS[-FREE - 1]))

    hits, struck = Counter(h["fault"] for h in log.hits), Counter(h["step"] for h in log.hits)
    pairs = [(k, p) for k in kinds for p in used if possible(k, p)]
    left = {place for _, place in pairs}
    if past := [p for p in used if p not in left and any(possible(k, p, 0) for k in kinds)]:
        return past[0], []  # its round is past what can be struck: it ends, and the next one begins
    kind, place = min(pairs, key=lambda kp: (hits[kp[0]] / SHARES[kp[0]], rng.random()))
    at = used[place].at

    def step_from(first: int, kind: str) -> str:
        return ONLY.get(kind) or min(STEPS[first : first + AHEAD], key=lambda s: (struck[s], rng.random()))

    drawn = [(kind, step_from(at, kind))]
    survived = ["worker", "s3", "s3", *(["node"] if kind in CLUSTER else []), *(["clock"] if kind == "clock" else [])]
    drawn += [(k, step_from(at, k)) for k in survived * 2 if possible(k, place) and rng.random() < 0.5]
    first = max(STEPS.index(s) for _, s in drawn)
    if kind not in LAST:
        ends = [k for k in LAST if possible(k, place) and k not in ONLY]
        last = min(ends, key=lambda k: (hits[k] / SHARES[k], rng.random()), default="")
        drawn += [(last, step_from(first, last))] if last else []
        first = max(STEPS.index(s) for _, s in drawn)
    drawn.sort(key=lambda f: (f[0] in LAST, STEPS.index(f[1])))
    # In case it goes on nevertheless. The last steps are left, so that rounds end.
    return place, drawn + [("driver", s) for s in STEPS[first + 1 : -FREE] if "driver" in kinds]


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


def contents(workspace: str) -> dict[str, str]:
    """SHA-256 of every file that a fault must not change, without logs that have clock times."""
    root = located(workspace)
    files = [p for f in FOLDERS for p in (root / f).rglob("*") if p.is_file()]
    kept = [p for p in files if p.name != "metrics.jsonl" and ".hashes" not in p.parts]
    return {str(p)[len(str(root)) + 1 :]: hashlib.sha256(p.read_bytes()).hexdigest() for p in kept}


def differences(place: Place) -> list[str]:
    """Repeat the rounds without faults, in a folder; names of the files that differ."""
    disturbed, wanted = place.target.workspace, place.target.rounds
    place.world.reset()
    place.target.workspace = str(place.target.scratch / f"reference-{place.world.folder.name}")
    place.target.environment, place.target.rounds = {}, place.world.round
    while Command(place.target).end() == "finished" and place.target.rounds < wanted:
        place.grow()
    one, other = contents(disturbed), contents(place.target.workspace)
    return sorted(p for p in one.keys() | other.keys() if one.get(p) != other.get(p))


def places(folder: Path, rng: random.Random, stack: contextlib.ExitStack) -> dict[str, Place]:
    """Two equal worlds: one with a workspace in a folder, one with a workspace on S3 behind a network that can fail."""
    host, port = stack.enter_context(s3_server())
    network = Network(rng)
    address, _ = stack.enter_context(faulty(host, port, network))
    os.environ |= environment(f"http://{host}:{port}")  # this process bypasses the network
    of_run = {"AWS_ENDPOINT_URL": address, "XDG_CACHE_HOME": str(folder / "cache")}
    bucket = make_bucket(host, port, "chaos")
    here, there = SmallWorld(folder / "folder"), SmallWorld(folder / "s3")
    return {
        "folder": Place(
            here, Target(here.source, here.preset, str(folder / "disk" / "w"), folder, clock_library(folder))
        ),
        "s3": Place(there, Target(there.source, there.preset, f"{bucket}/w", folder, None, network, of_run)),
    }


def parse() -> argparse.Namespace:
    """Arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100, help="number of faults (default: %(default)s)")
    parser.add_argument(
        "--kinds", nargs="+", choices=[*FAULTS], default=[*FAULTS], help="kinds of faults; default: all"
    )
    parser.add_argument("--minutes", type=float, default=1e9, help="no further fault after this time")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="folder to keep, and to add to (default: a temporary one)")
    parser.add_argument("--compare", action="store_true", help="repeat all rounds undisturbed, compare bytes")
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
            path.write_text("\n".join(run.output))
            print(f"{end}: {path}", flush=True)


def strike(used: dict[str, Place], kinds: Collection[str], log: Log, rng: random.Random) -> None:
    """Disturb one run; when it completes nevertheless, its world grows."""
    name, drawn = draw(used, kinds, log, rng)
    place, thrown = used[name], [k for k, _ in drawn]
    with contextlib.ExitStack() as stack:
        nodes = stack.enter_context(contextlib.closing(Nodes())) if {*CLUSTER} & {*thrown} else None
        run = Command(place.target, prefect="server" in thrown, clock="clock" in thrown, nodes=nodes)
        hits, end = disturb(run, drawn, rng)
    log.add(name, run, hits, end)
    if end == "finished":
        place.grow()
    elif hits:
        place.at = STEPS.index(run.step)


def verify(used: dict[str, Place], log: Log) -> tuple[list[str], list[str], bool]:
    """Finish both workspaces undisturbed; returns lost inputs, doubled rows, and whether both are sound."""
    lost, twice, sound = [], [], True
    for name, place in used.items():
        last = Command(place.target)
        log.ends.append(last.end())
        if log.ends[-1] != "finished":
            print("\n".join(last.output[-20:]), file=sys.stderr)
        workspace = Workspace(place.target.workspace)
        for names, more in zip((lost, twice), losses(workspace, place.world.source)):
            names += [f"{name}: {m}" for m in more]
        report = fsck(workspace)
        sound &= report.sound
        tell(f"{name}: {f}" for f in report.findings if f.severity == "error")
    tell([*lost, *twice])
    return lost, twice, sound


def tell(lines: Iterable[str]) -> None:
    """Print lines as they come."""
    for line in lines:
        print(line, flush=True)


def session(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Disturb runs, finish them, look up every row; returns the figures, and prints them by kind, place and step."""
    rng, began = random.Random(arguments.seed), time.monotonic()
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "disk"))
        used, log = places(folder, random.Random(arguments.seed), stack), Log(folder, began)
        missing = {"disk": not disk, "clock": used["folder"].target.clock is None}
        kinds = [k for k in arguments.kinds if not missing.get(k)]
        tell(f"{k}: left out, see --help" for k in arguments.kinds if missing.get(k))
        while len(log.hits) < arguments.faults and time.monotonic() - began < 60 * arguments.minutes:
            strike(used, kinds, log, rng)
        lost, twice, sound = verify(used, log)
        rounds = sum(p.target.rounds for p in used.values())
        other = [f"{n}: {d}" for n, p in used.items() for d in differences(p)] if arguments.compare else None
    tell(f"differs: {d}" for d in other or ())
    for keys in (("fault", "place", "end"), ("step", "place")):
        for named, n in sorted(Counter(tuple(h[k] for k in keys) for h in log.hits).items()):
            print("".join(f"{part:<24}" for part in named), n)
    return {
        "faults": len(log.hits),
        "rows_lost": len(lost),
        "rows_doubled": len(twice),
        "unfinished": sum(e in UNCLEAR for e in log.ends) + sum(e != "finished" for e in log.ends[-2:]),
        "rounds": rounds,
        "sound": sound,
        "files_differ": None if other is None else len(other),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "kinds": dict(sorted(Counter(f"{h['fault']} ({h['place']})" for h in log.hits).items())),
        "steps": dict(sorted(Counter(h["step"] for h in log.hits).items())),
    }


def add(figures: dict[str, object], sessions: Path) -> dict[str, object]:
    """Append a session's figures to a file; returns their sum over all its sessions."""
    with open(sessions, "a") as f:
        f.write(json.dumps(figures) + "\n")
    every = [json.loads(line) for line in sessions.read_text().splitlines()]
    total: dict[str, object] = {"sessions": len(every), "sound": all(s["sound"] for s in every)}
    for key in ("faults", "rows_lost", "rows_doubled", "unfinished", "rounds", "files_differ", "minutes"):
        total[key] = sum(s[key] or 0 for s in every)
    for key in ("kinds", "steps"):
        total[key] = dict(sorted(sum((Counter(s[key]) for s in every), Counter[str]()).items()))
    return total


def main() -> None:
    """Run a session; then print its figures as one JSON line."""
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that mounts and processes end, too
    signal.signal(signal.SIGINT, signal.default_int_handler)  # runs would ignore it, as those that nohup starts do
    with tempfile.TemporaryDirectory() as scratch:
        parent = (arguments.folder or Path(scratch)).resolve()
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="session-", dir=parent))
        figures = session(arguments, folder)
        if arguments.folder:
            figures["total"] = add(figures, parent / "sessions.jsonl")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
