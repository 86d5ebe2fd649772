"""A billion images, 200 million per stage: how costs grow, and what a stage costs at the rates of this machine.

python benchmarks/scale.py [--rows 10000000] [--pictures 96] [--parts ledger rates]

Structures are simulated with synthetic rows, each in its own process, at `--rows` and at a tenth of it: listing the
pool and its unscored shards, listing and planning an ingest, a training plan and its first batch, the signals ledger
(append, query, compaction), the fold of case events, near-duplicates. Their growth is extrapolated to a billion rows.
Rates are CPU-seconds of one thread on photographs enlarged to one megapixel, converted to hours per stage.

The last line is one JSON object: of each phase _s (CPU-seconds), _gib (peak memory) and _grows (exponent); then
driver_gib_10m, the peak memory of listing and planning an ingest of so many inputs, and core_hours, terabytes and files
of a billion images.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

import numpy as np
import pyarrow as pa

from curation.policy.reader import load_policy
from flywheel.core.files import write_json
from flywheel.core.workspace import Workspace

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
GOAL, STAGE = 10**9, 2 * 10**8  # images in total, and per stage
BUCKETS = {stage.name: stage.resolutions for stage in load_policy("qwen-image-2").stages}
PIXELS = 1_000_000  # of the images that rates are measured on
APPENDS = 10  # per ledger


# Structures ----------------------------------------------------------------------------------------------------------
def listing(folder: Path, rows: int) -> Iterator[str]:
    """List the shards of the pool, and the missing score files."""
    from curation.scorers import scoring
    from curation.sources import pool
    from curation.sources.ingest import LARGE_SHARD_ROWS, PACK_ROWS

    workspace, size = Workspace(folder), LARGE_SHARD_ROWS
    count = rows // size
    shards = [{"path": f"{n:07d}.parquet", "rows": size, "bytes": 1, "sha256": f"{n:064x}"} for n in range(count)]
    manifest = {"shards": shards, pool.TOGETHER: PACK_ROWS // size}
    write_json(workspace.path("pool", "00001-synthetic", "manifest.json"), manifest)
    del shards
    yield "list the pool"
    pool.shards(workspace)
    yield "find what is unscored"
    scoring.pending(workspace, {"header": {}, "pixels": {}, "text": {}})


def intake(folder: Path, rows: int) -> Iterator[str]:
    """List a source of which the pool knows all inputs but a thousand, and plan the batch of those; then of all."""
    from curation.sources import Input
    from curation.sources.ingest import _write_plan
    from curation.sources.listing import compared, listing

    class Listed:
        kind, address = "synthetic", "/synthetic"

        def __init__(self, count: int) -> None:
            self._count = count

        def each(self) -> Iterator[Input]:
            for n in range(self._count):
                uri = f"s3://bucket/crawl/part-{n // 10_000:05d}.tar::{n:09d}.jpg"
                yield Input(uri, 150_000 + n % 997, n // 10_000, n, captions=(("general", f"a picture of thing {n}"),))

    workspace = Workspace(folder)
    yield "list and plan all inputs"
    with listing(Listed(rows)) as (path, count), compared(workspace, path, count) as found:  # type: ignore[arg-type]
        batch = _write_plan(workspace, Listed(0), "synthetic", found)  # type: ignore[arg-type]
    write_json(batch / "manifest.json", {"shards": [], "rows": 0, "quarantined": 0})
    yield "list all and plan a thousand"
    with listing(Listed(rows + 1000)) as (path, count), compared(workspace, path, count) as found:  # type: ignore[arg-type]
        assert found.fresh == 1000
        _write_plan(workspace, Listed(0), "synthetic", found)  # type: ignore[arg-type]


def plan(folder: Path, rows: int) -> Iterator[str]:
    """Make a training plan over 256-pixel shards, and its first global batch."""
    from curation.shards.plan import average_rows
    from training.data.plan import DataPlan, MixSource

    size = average_rows(256**2, far=True)
    shared = {"rows": size, "bytes": 1, "bucket": 256, "task": "t2i", "height": 256, "width": 256, "references": 0}
    shared |= {"stages": ["S1"]}
    files = [{**shared, "path": f"{n:07d}.parquet", "sha256": f"{n:064x}"} for n in range(rows // size)]
    write_json(folder / "manifest.json", {"snapshot": "benchmark", "files": files})
    del files
    yield "make a training plan"
    made = DataPlan(
        [MixSource(manifest=folder / "manifest.json")], batch={256: 32_000}, t2i_share=1.0, seed=0, on_error="skip"
    )
    yield "its first batch of 32,000"
    made.batch(0)


def ledger(folder: Path, rows: int) -> Iterator[str]:
    """Append signals in ten parts, query failure rates, compact."""
    from flywheel.catalog import database as catalog
    from flywheel.core.ledger import Ledger
    from flywheel.core.schema import LEDGERS

    workspace, rng = Workspace(folder), np.random.default_rng(0)
    signals = Ledger(workspace, "signals")
    part = rows // APPENDS

    def table(first: int) -> pa.Table:
        names = np.char.add("s", np.arange(first, first + part).astype(str))
        columns = {
            "signal_id": names,
            "kind": np.full(part, "feedback"),
            "prompt_id": np.char.add("p", rng.integers(0, GOAL, part).astype(str)),
            "prompt": np.char.add("a photograph of the thing that a user asked for, number ", names),
            "capability": rng.choice(["typography", "count", "identity", "layout"], part),
            "passed": rng.random(part) < 0.7,
            "round": rng.integers(1, 20, part, dtype=np.int32),
        }
        return _table(columns, LEDGERS["signals"], part)

    yield "append to a ledger"
    for first in range(0, rows, part):
        signals.append(table(first), key=str(first))
    yield "failure rates by round"
    catalog.query(workspace, "select round, capability, avg((not passed)::int) from signals group by all")
    yield "compact the ledger"
    signals.compact()


def fold(folder: Path, rows: int) -> Iterator[str]:
    """Fold events into cases, three events each."""
    from flywheel.catalog import database as catalog
    from flywheel.core.ledger import Ledger
    from flywheel.core.schema import LEDGERS

    workspace = Workspace(folder)
    part = rows // APPENDS
    for first in range(0, rows, part):
        case = np.char.add("c", (np.arange(first, first + part) // 3).astype(str))
        columns = {
            "event_id": np.char.add("e", np.arange(first, first + part).astype(str)),
            "case_id": case,
            "round": np.full(part, 1, np.int32),
            "kind": np.tile(["detected", "routed", "passed"], -(-part // 3))[:part],
            "capability": np.full(part, "count"),
            "track": np.full(part, "rl"),
            "prompt_id": case,
            "prompt": np.char.add("a photograph of ", case),
            "evidence": np.full(part, "{}"),
        }
        Ledger(workspace, "case_events").append(_table(columns, LEDGERS["case_events"], part), key=str(first))
    yield "fold events into cases"
    catalog.query(workspace, "select status, count(*) from cases group by all")


def _table(columns: dict[str, Any], schema: pa.Schema, rows: int) -> pa.Table:
    """A table for a ledger: other columns are null, and the append adds the time."""
    every = {f.name: columns.get(f.name, pa.nulls(rows)) for f in schema if f.name != "at"}
    return pa.table({name: pa.array(c).cast(schema.field(name).type) for name, c in every.items()})


def duplicates(folder: Path, rows: int) -> Iterator[str]:
    """Find pairs within 8 bits among random hashes, 5 % of them near-duplicates."""
    from curation.decide.dedup import related
    from curation.decide.thumbnails import Thumbnails

    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, rows, dtype=np.uint64)
    hashes[-(rows // 20) :] = hashes[: rows // 20] ^ np.uint64(0b1111)
    yield "find near-duplicates"
    related(hashes, Thumbnails(rows, 0), np.zeros(rows, np.int64), hamming=8, colour=0)


STRUCTURES: dict[str, Callable[[Path, int], Iterator[str]]] = {
    f.__name__: f for f in (listing, intake, plan, ledger, fold, duplicates)
}


def simulate(name: str, rows: int) -> None:
    """Run one structure in this process; print {phase: [CPU-seconds, peak GiB up to its end]} as JSON."""
    out: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        phase, began = "", 0.0
        for following in _phases(name, Path(scratch, "w"), rows):
            now = time.process_time()
            if phase:
                out[phase] = [now - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]
            phase, began = following, time.process_time()
    print(json.dumps(out))


def _phases(name: str, folder: Path, rows: int) -> Iterator[str]:
    folder.mkdir()
    yield from STRUCTURES[name](folder, rows)
    yield ""  # the end of the last one


def structures(names: list[str], rows: int) -> dict[str, float]:
    """Print every phase at a tenth of the rows, at the rows, and extrapolated to a billion."""
    figures: dict[str, float] = {"rows": rows}
    print(f"{'':<28}{rows // 10:>12,}{rows:>12,}{'grows':>8}{'10^9: hours':>14}{'GiB':>9}")
    for name in names:
        small, large = (_simulated(name, n) for n in (rows // 10, rows))
        for phase, (seconds, gib) in large.items():
            exponent = math.log10(max(seconds, 1e-3) / max(small[phase][0], 1e-3))
            times = GOAL / rows
            hours = seconds * times ** max(exponent, 1) / 3600
            memory = gib + (gib - small[phase][1]) / 0.9 * (times - 1)
            print(
                f"{phase:<28}{small[phase][0]:>10.2f} s{seconds:>10.2f} s{exponent:>8.2f}{hours:>14.2f}{memory:>9.0f}",
                flush=True,
            )
            key = phase.replace(",", "").replace(" ", "_")
            figures |= {f"{key}_s": round(seconds, 2), f"{key}_gib": round(gib, 2), f"{key}_grows": round(exponent, 2)}
        if name == intake.__name__ and rows % 10**6 == 0:
            figures[f"driver_gib_{rows // 10**6}m"] = round(max(gib for _, gib in large.values()), 2)
    return figures


def _simulated(name: str, rows: int) -> dict[str, list[float]]:
    command = [sys.executable, __file__, "--simulate", name, "--rows", str(rows)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# Rates ---------------------------------------------------------------------------------------------------------------
def rates(count: int) -> dict[str, float]:
    """CPU-seconds per image of each job, and bytes per stored image of each bucket."""
    from benchmarks.measure import tile
    from curation.policy.reader import load_policy
    from curation.run import configure
    from curation.sources.ingest import ingest
    from flywheel.core.scorer import Item

    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = tile(sorted(PHOTOS.glob("*.jpg")), Path(scratch, "photos"), count, PIXELS)
        warm = tile(sorted(PHOTOS.glob("*.jpg")), Path(scratch, "warm"), 2)
        ingest(Workspace(Path(scratch, "v")), warm)  # so that imports are not timed
        measured["ingest"] = _each(lambda: ingest(Workspace(Path(scratch, "w")), folder), count)
        pictures = [p.read_bytes() for p in sorted(folder.iterdir())]
    items = [Item(image=data, caption="a photograph", task="t2i", references=()) for data in pictures]
    for name, scorer in configure(load_policy("qwen-image-2"))[0].items():
        scorer.score(items[:2])  # so that loading is not timed
        measured[f"score {name}"] = _each(lambda scorer=scorer: scorer.score(items), count)
    for bucket in sorted({b for buckets in BUCKETS.values() for b in buckets}):
        sizes: list[int] = []
        job = partial(_shard, pictures, bucket, sizes)
        measured |= {f"shard {bucket}": _each(job, count), f"bytes {bucket}": sum(sizes) / count}
    return measured


def _shard(pictures: list[bytes], bucket: int, sizes: list[int]) -> None:
    from curation.shards.fit import fit

    sizes += [len(fit(data, bucket, bucket)) for data in pictures]


def _each(function: Callable[[], Any], count: int) -> float:
    began = time.process_time()
    function()
    return (time.process_time() - began) / count


def stages(measured: dict[str, float]) -> dict[str, float]:
    """Print the cost of a billion images by job and by stage."""
    from curation.shards.plan import average_rows
    from curation.sources.ingest import LARGE_SHARD_ROWS, PACK_ROWS

    jobs = {k: v for k, v in measured.items() if k == "ingest" or k.startswith("score")}
    print(f"\n{'once, for 10^9 images':<28}{'CPU-ms each':>12}{'core-hours':>14}")
    for name, seconds in jobs.items():
        print(f"{name:<28}{1000 * seconds:>12.2f}{seconds * GOAL / 3600:>14,.0f}")
    hours, terabytes, files = sum(jobs.values()) * GOAL / 3600, 0.0, GOAL / LARGE_SHARD_ROWS
    files += GOAL / PACK_ROWS * (len(jobs) - 1)  # all but ingest score
    print(f"\n{'stage, 2×10^8 images':<28}{'buckets':>16}{'core-hours':>14}{'TB':>10}{'files':>12}")
    for stage, buckets in BUCKETS.items():
        spent = sum(measured[f"shard {b}"] for b in buckets) * STAGE / 3600
        size = sum(measured[f"bytes {b}"] for b in buckets) * STAGE / 1e12
        number = sum(STAGE / average_rows(b**2, far=True) for b in buckets)
        hours, terabytes, files = hours + spent, terabytes + size, files + number
        print(f"{stage:<28}{' '.join(map(str, buckets)):>16}{spent:>14,.0f}{size:>10,.1f}{number:>12,.0f}")
    return {"core_hours": round(hours), "terabytes": round(terabytes, 1), "files": round(files)}


def main() -> None:
    """Print the tables, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of a structure (default: %(default)s)")
    parser.add_argument(
        "--pictures", type=int, default=96, help="photographs to measure rates on (default: %(default)s)"
    )
    parser.add_argument("--parts", nargs="+", choices=(*STRUCTURES, "rates"), default=(*STRUCTURES, "rates"))
    parser.add_argument("--simulate", choices=STRUCTURES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.simulate:
        simulate(arguments.simulate, arguments.rows)
        return
    figures = structures([p for p in arguments.parts if p in STRUCTURES], arguments.rows)
    if "rates" in arguments.parts and PHOTOS.is_dir():
        figures |= stages(rates(arguments.pictures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
