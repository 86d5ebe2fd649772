"""SIGKILL at random points of a run's rounds: does it complete, with each event once and the same bytes?

python benchmarks/kills.py [--kills 20] [--seed 0] [--folder DIR]

A small world and model. The run is started again after each kill; when it completes it is asked for one round more, so
that every kill hits work. At the end it is finished, and so is a run of the same rounds that nobody killed. The last
line is one JSON object: kills, and whether all completed, every ledger holds each event once, and files are equal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from flywheel.demo.world import write_world
from flywheel.ledger import Ledger
from flywheel.workspace import Workspace

PRESET = """
policy = "demo"
[training]
recipe = { base = "tiny", batch = { 64 = 16 }, resolution = { 64 = 64 }, checkpoint_every = 2, validate_every = 8 }
base_steps = 8
round_steps = 6
[evaluation]
suite = "demo-quick"
side = 64
steps = 2
cfg = 2.0
[attribution]
seeds = 1
[plan]
remedy_share = 0.5
max_targets = 2
min_cases = 1
samples = 16
[review]
auto_approve = true
"""
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
FOLDERS = ("pool", "scores", "shards", "remedies", "checkpoints", "samples")


def start(folder: Path, name: str, rounds: int) -> subprocess.Popen:
    """A run of so many rounds, in a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "flywheel.cli",
        "run",
        "--source",
        str(folder / "source"),
        "--no-prefect",
        "--json",
    ]
    command += ["--workspace", str(folder / name), "--preset", str(folder / "micro.toml"), "--rounds", str(rounds)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(folder: Path, name: str, rounds: int) -> tuple[bool, float]:
    """(Did it end well?, seconds) of a run that nobody kills."""
    began, process = time.monotonic(), start(folder, name, rounds)
    _, said = process.communicate()
    if process.returncode:
        print(said[-2000:], file=sys.stderr)
    return process.returncode == 0, time.monotonic() - began


def kill_once(folder: Path, rounds: int, seconds: float) -> bool:
    """Start the run and kill it, with everything that it started, after so long; False when it had ended by then."""
    process = start(folder, "killed", rounds)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode:
        raise RuntimeError(f"the run failed by itself after {seconds:.0f} s")
    return False


def repeated(workspace: Workspace) -> dict[str, list[str]]:
    """Ids that stand in a ledger more than once."""
    out = {}
    for name, column in IDS.items():
        counts = Counter(str(r[column]) for r in Ledger(workspace, name).rows())
        out[name] = [i for i, n in counts.items() if n > 1]
    return {k: v for k, v in out.items() if v}


def contents(workspace: Path) -> dict[str, str]:
    """SHA-256 of every file that a kill must not change; logs with clock times aside."""
    found = [
        p for f in FOLDERS for p in sorted((workspace / f).rglob("*")) if p.is_file() and p.name != "metrics.jsonl"
    ]
    return {str(p.relative_to(workspace)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def main() -> None:
    """Kill, finish, compare; then print the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="new folder to keep (default: a temporary one)")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.folder or Path(scratch)).resolve()
        write_world(folder / "source", seed=0, size="quick")
        (folder / "micro.toml").write_text(PRESET)
        rounds = 2
        ok, whole = finish(folder, "reference", rounds)
        kills, stages = 0, Counter()
        while ok and kills < arguments.kills:
            if kill_once(folder, rounds, rng.uniform(0.1, 0.6) * whole):
                kills += 1
                last = [r["step"] for r in Ledger(Workspace(folder / "killed"), "costs").rows()][-1:] or ["nothing"]
                stages[f"after {last[0]}"] += 1
                print(f"kill {kills}: {last[0]} was the last finished step, {rounds} rounds wanted", flush=True)
            else:
                rounds += 1
        completed = ok and finish(folder, "killed", rounds)[0] and finish(folder, "reference", rounds)[0]
        twice = repeated(Workspace(folder / "killed"))
        same = contents(folder / "killed") == contents(folder / "reference")
    for stage, n in stages.most_common():
        print(f"{stage:<24}{n:>4}")
    print(json.dumps({"kills": kills, "completed": completed, "events_twice": twice, "same_bytes": same}))


if __name__ == "__main__":
    main()
