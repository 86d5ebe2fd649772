"""A pool that grows: what the second `flywheel curate` costs, the whole command, after 1 picture more and 1 % more.

python benchmarks/grow.py [--rows 2000] [--policy FILE] [--keep FOLDER]

Pictures are generated (smooth colours, rectangles and grain, 640 x 480, JPEG), each of its own. The policy has two
stages (256 and 512 pixels), cheap filters and a search for duplicates: what is measured is the engine, not networks.
The same number of pictures is also added to a pool of a tenth of the size.

cold_cpu_s: CPU-seconds of the process tree of the first command. unchanged_cpu_s: of a second one, nothing new.
add_1_cpu_s, add_1pct_cpu_s: after adding; …_cpu_share, …_bytes_share: those and the bytes written, relative to the
first command. …_rewritten: rows of shard files written, less the new ones; …_encoded: pictures encoded, by bucket.
increment_ratio: adding 1 % to the pool, relative to adding as many to a pool of a tenth (goal 1.5).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

POLICY = """\
[S1]
resolutions = [256]
enters = ["t2i"]

[S1.filters.broken_files]
check = "readable"

[S1.filters.resolution]
score = "header.short_edge"
min = 256

[S1.filters.entropy]
score = "pixels.entropy"
min = 2.0

[S1.filters.dedup]
check = "duplicates"
hamming = 4
colour = 16

[S2]
resolutions = [512]
enters = []

[S2.filters.balance]
check = "balance"
per = "source"
cap = 1000000
tail = 0.5
"""
_POLL = 0.1  # seconds between samples of the tree


class Tree:
    """CPU-seconds of a process and of everything that it ever started."""

    def __init__(self, process: psutil.Process) -> None:
        self._root, self._seen, self._ended = process, dict[int, float](), threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def _watch(self) -> None:
        while not self._ended.wait(_POLL):
            try:
                for process in (self._root, *self._root.children(recursive=True)):
                    self._seen[process.pid] = max(self._seen.get(process.pid, 0.0), sum(process.cpu_times()[:2]))
            except psutil.Error:
                continue

    def end(self) -> float:
        self._ended.set()
        self._watcher.join()
        return sum(self._seen.values())


def picture(number: int) -> bytes:
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        (640, 480), Image.Resampling.BICUBIC
    )
    pen = ImageDraw.Draw(coarse)
    for _ in range(6):
        x, y, w, h = (int(v) for v in rng.integers(20, 400, 4))
        pen.rectangle([x, y, x + w // 3, y + h // 3], fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    grain = rng.normal(0, 6, (480, 640, 1)).astype(np.int16)
    pixels = np.clip(np.asarray(coarse, np.int16) + grain, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=92)
    return out.getvalue()


def generate(folder: Path, numbers: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "captions.jsonl", "a") as captions:
        for n in numbers:
            (folder / f"{n:07d}.jpg").write_bytes(picture(n))
            captions.write(json.dumps({"file": f"{n:07d}.jpg", "caption": f"coloured rectangles, picture {n}"}) + "\n")


def files(workspace: Path) -> dict[Path, tuple[int, int, int]]:
    found = (p for p in workspace.rglob("*") if p.is_file())
    return {p: (s.st_ino, s.st_mtime_ns, s.st_size) for p in found for s in [p.stat()]}


def curate(workspace: Path, source: Path, policy: Path) -> dict[str, float]:
    """Run the command; CPU-seconds, bytes written, and what became of rows."""
    before = files(workspace)
    command = [sys.executable, "-m", "flywheel.cli", "curate", "--source", str(source), "--workspace", str(workspace)]
    command += ["--policy", str(policy), "--json", "--workers", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    tree = Tree(psutil.Process(process.pid))
    out, errors = process.communicate()
    cpu = tree.end()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {errors[-2000:]}")
    written = {p: s for p, s in files(workspace).items() if before.get(p) != s}
    grown = sum(s[2] - (before[p][2] if p in before and p.name == "log" else 0) for p, s in written.items())
    shards = [p for p in written if p.suffix == ".parquet" and p.is_relative_to(workspace / "shards")]
    old = {(p.parent.name, n) for p in before if p.is_relative_to(workspace / "shards") for n in _made_from(p)}
    rows = [(p.parent.name, n) for p in shards for n in _made_from(p)]
    return {
        "cpu": cpu,
        "bytes": float(grown),
        "rows": float(len(rows)),
        "encoded": float(len(set(rows) - old)),
        "admitted": float(json.loads(out.splitlines()[-1])["admitted"]),
    }


def _made_from(path: Path) -> list[int]:
    return pq.read_table(path, columns=["made_from"])["made_from"].to_pylist() if path.suffix == ".parquet" else []


def measure(folder: Path, rows: int, more: int, policy: Path) -> dict[str, dict[str, float]]:
    """The first command on a pool, one with nothing new, and one each after 1 and `more` new pictures."""
    source, workspace = folder / "pictures", folder / "w"
    generate(source, range(rows))
    runs = {"cold": curate(workspace, source, policy), "unchanged": curate(workspace, source, policy)}
    generate(source, range(rows, rows + 1))
    runs["add_1"] = curate(workspace, source, policy)
    generate(source, range(rows + 1, rows + 1 + more))
    runs["add_1pct"] = curate(workspace, source, policy)
    for name, run in runs.items():
        print(f"{rows:>8} {name:<12}" + "".join(f"{run[k]:>16,.1f}" for k in _SHOWN), flush=True)
    return runs


_SHOWN = ("cpu", "bytes", "rows", "encoded", "admitted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--policy", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for pictures and workspaces; a temporary one otherwise")
    options = parser.parse_args()
    scratch = options.keep or Path(tempfile.mkdtemp(prefix="grow-"))
    scratch.mkdir(parents=True, exist_ok=True)
    policy = options.policy or scratch / "grow.toml"
    if not options.policy:
        policy.write_text(POLICY)
    more = max(1, options.rows // 100)
    print(f"{'rows':>8} {'command':<12}" + "".join(f"{name:>16}" for name in _SHOWN))
    small = measure(scratch / "small", max(more, options.rows // 10), more, policy)
    large = measure(scratch / "large", options.rows, more, policy)
    result: dict[str, float] = {"rows": options.rows, "more": more}
    for name, run in large.items():
        result[f"{name}_cpu_s"] = round(run["cpu"], 1)
        if name.startswith("add"):
            result[f"{name}_cpu_share"] = round(run["cpu"] / large["cold"]["cpu"], 3)
            result[f"{name}_bytes_share"] = round(run["bytes"] / large["cold"]["bytes"], 4)
            result[f"{name}_rewritten"] = run["rows"] - run["encoded"]
            result[f"{name}_encoded"] = run["encoded"]
    result["increment_ratio"] = round(large["add_1pct"]["cpu"] / small["add_1pct"]["cpu"], 3)
    if not options.keep:
        shutil.rmtree(scratch)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
