"""Measure how evaluation gets faster with the processes that draw and judge.

python benchmarks/evaluation.py [--pictures 4] [--steps 20] [--repeats 2] [--most 2]

The demo's suite is drawn from the checkpoint that ships with the package, and judged: by this process, and by one,
two, … processes of one core each. Every measurement is a process of its own, from its start to its end: imports and
loading the model are included. Wall time is compared, the shortest of the repeats, so the machine must be quiet; the
five measurements take about three minutes of two such cores. That all wrote the same pictures and verdicts is checked
first. `eval_two_workers` is one worker's time divided by that of two. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from flywheel.core.workspace import Workspace
from flywheel.demo.start import checkpoint
from flywheel.demo.suite import write_suite
from flywheel.generators import describe, open_generator
from flywheel.presets import load_preset
from flywheel.signals.sheets import Sheet, Workers, draw_and_judge
from flywheel.signals.suite import load_suite


def evaluate(folder: Path, workers: int, pictures: int, steps: int) -> str:
    """Draw and judge the suite into `folder`; returns a digest of all pictures and verdicts. workers: 0: none."""
    write_suite(folder / "suite", size="full")
    suite = load_suite(folder / "suite" / "suite.jsonl")
    table = describe(checkpoint(seed=0) or "")
    settings = replace(load_preset("demo").evaluation, steps=steps)
    sheets = [Sheet(suite, suite, folder / f"seed-{n}", n) for n in range(pictures)]
    found = draw_and_judge(
        sheets,
        open_generator(table),
        workspace=Workspace(folder / "w"),
        settings=settings,
        workers=Workers(partial(open_generator, table), workers) if workers else None,
    )
    seen = hashlib.sha256(repr(list(found)).encode())
    for path in sorted(folder.glob("seed-*/*.png")):
        seen.update(path.read_bytes())
    return seen.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=4, help="of each prompt")
    parser.add_argument("--steps", type=int, default=20, help="of sampling")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--most", type=int, default=2, help="workers, at most")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only is not None:
        print(evaluate(arguments.folder, arguments.only, arguments.pictures, arguments.steps))
        return
    seconds: dict[int, float] = {}
    digests = set()
    for repeat in range(arguments.repeats):
        for workers in range(bool(repeat), arguments.most + 1):
            with tempfile.TemporaryDirectory() as folder:
                sizes = ["--pictures", str(arguments.pictures), "--steps", str(arguments.steps)]
                command = [sys.executable, __file__, "--only", str(workers), "--folder", folder, *sizes]
                start = time.perf_counter()
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                taken = time.perf_counter() - start
                digests.add(out.splitlines()[-1])
            seconds[workers] = min(seconds.get(workers, taken), taken)
            print(f"{workers or 'no'} workers: {taken:.1f} s", flush=True)
    if len(digests) > 1:
        raise SystemExit("the pictures or verdicts differ between numbers of workers")
    figures = {f"eval_{w}_workers_s": round(s, 1) for w, s in seconds.items() if w}
    print(json.dumps({"eval_here_s": round(seconds[0], 1), **figures, "eval_two_workers": seconds[1] / seconds[2]}))


if __name__ == "__main__":
    main()
