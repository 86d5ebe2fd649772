"""Changed thresholds on a million scored rows, and near-duplicate search among millions of hashes.

python benchmarks/rethreshold.py [--rows 1000000] [--hashes 10000000] [--shards 200]

rethreshold_1m_s: wall seconds of one `curation.run.funnel` call (every stage, bucket and filter, including duplicates
and balance) with a changed threshold, median of five; the tables are on disk and the process is warm. Comparing the
sketches of pictures that resemble each other, once per pool, is left out: `end_to_end.py` has it.
rethreshold_1m_cpu_s: the same in CPU-seconds of all threads.
decide_1m_s and decide_1m_gib: wall seconds to decide about every row and to write the reasons and the admitted rows,
once it is known which rows resemble each other; and the peak memory of the process, with the first funnel.
compact_s_per_1k: wall seconds to gather the score files of 1,000 shards into a table, once per batch.
neardup_10m_s and neardup_10m_gib: seconds to find all pairs within 4 bits among random hashes, 5 % of them planted
near-duplicates, in a separate process, and its peak memory; neardup_10m_cpu_s: of all its threads. neardup_10m_8bit_…:
within 8 bits, as the policy asks. neardup_missed: planted pairs that were not found. The keys name the sizes.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from curation.decide.judge import judge
from curation.policy.policy import Policy, Stage
from curation.policy.reader import load_policy
from curation.policy.what_if import Basis, what_if
from curation.run import configure, funnel
from curation.scorers import table
from curation.scorers.stored import score_path
from curation.sources.pool import Shard
from flywheel.core.files import write_json, write_parquet
from flywheel.core.schema import POOL, QUARANTINE, SCORE_KEYS
from flywheel.core.workspace import Workspace

SHARD_ROWS, BATCH = 64, "00001-synthetic"
NEAR = 0.05  # share of rows that resemble another
STOPPED = 0.01  # share of rows that a filter stops
CATEGORIES = ("animal", "building", "food", "landscape", "people", "plant", "product", "text", "vehicle", "other")


def rows(rng: np.random.Generator, count: int, schema: pa.Schema, first: int, policy: Policy) -> pa.Table:
    """Rows of a score table as of a pool of photographs: most pass, and each filter of the policy stops some."""
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    twins = max(1, int(count * NEAR))
    hashes[-twins:] = hashes[:twins] ^ (np.uint64(1) << rng.integers(0, 64, twins).astype(np.uint64))
    thumbnails = rng.integers(0, 256, (count, 192), dtype=np.uint8)
    thumbnails[-twins:] = thumbnails[:twins]
    ids = [rng.bytes(32).hex() for _ in range(count)]
    short = np.exp(rng.normal(6.6, 0.7, count)).astype(np.int32) + 64
    known = {
        "shard": [f"{BATCH}-{n // SHARD_ROWS:05d}" for n in range(first, first + count)],
        "row": np.arange(first, first + count) % SHARD_ROWS,
        "sample_id": ids,
        "image_id": ids,
        "source_uri": [f"/pictures/{n:09d}.jpg" for n in range(first, first + count)],
        "source": ["pictures"] * count,
        "task": ["t2i"] * count,
        "stream": ["t2i"] * count,
        "width": short + 32,
        "height": short,
        "reference_ids": [[]] * count,
        "reason": [None] * count,
        "header.short_edge": short,
        "header.aspect": rng.normal(1.4, 0.4, count),
        "header.orientation": np.ones(count, np.int32),
        "header.jpeg_quality": rng.uniform(40, 100, count),
        "pixels.entropy": rng.normal(6.5, 1.5, count),
        "pixels.spatial_entropy": rng.normal(4.5, 0.8, count),
        "pixels.sharpness": np.exp(rng.normal(6, 1.2, count)),
        "pixels.phash": hashes,
        "pixels.thumbnail": [t.tobytes() for t in thumbnails],
        "text.token_length": rng.integers(0, 200, count),
        "category.name": rng.choice(CATEGORIES, count),
        "text.normalized": [f"a picture of thing {n}" for n in range(first, first + count)],
    }
    known |= {c: _passing(rng, count, *b) for c, b in _bounds(policy).items() if c in schema.names and c not in known}
    columns = [
        pa.array(known[f.name]).cast(f.type, safe=False) if f.name in known else _anything(rng, count, f.type)
        for f in schema
    ]
    return pa.table(columns, schema=schema)


def _bounds(policy: Policy) -> dict[str, tuple[float | None, float | None]]:
    """Column → (greatest min, least max) of the filters that judge it."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for filter_ in (f for s in policy.stages for f in s.filters if f.score):
        for limit, limits in zip((filter_.min, filter_.max), found.setdefault(filter_.score or "", ([], []))):
            limits += [] if limit is None else [limit]
    return {column: (max(least, default=None), min(most, default=None)) for column, (least, most) in found.items()}


def _passing(rng: np.random.Generator, count: int, low: float | None, high: float | None) -> np.ndarray:
    """Values within the bounds, but for a few."""
    least = low if low is not None else min(0.0, high or 0.0)
    most = high if high is not None else 2 * abs(least) + 1
    values = rng.uniform(least, most, count)
    stopped = rng.random(count) < STOPPED
    values[stopped] = most + 1 if low is None else least - 1
    return values


def _anything(rng: np.random.Generator, count: int, kind: pa.DataType) -> pa.Array:
    if pa.types.is_boolean(kind):
        return pa.array(rng.random(count) < 0.1, kind)
    if pa.types.is_integer(kind):
        return pa.array(rng.integers(0, 9, count), kind)
    return pa.array(rng.random(count), kind) if pa.types.is_floating(kind) else pa.nulls(count, kind)


def pool_of(folder: Path, count: int, policy: Policy) -> Workspace:
    """A workspace whose pool has `count` scored rows: its manifest, its quarantine and its score table."""
    workspace, scorers, shards = Workspace(folder), configure(policy)[0], []
    for number in range(-(-count // SHARD_ROWS)):
        part = min(SHARD_ROWS, count - number * SHARD_ROWS)
        shards.append({"path": f"{number:05d}.parquet", "rows": part, "bytes": 0, "sha256": f"{number:064x}"})
    manifest = {"shards": shards, "rows": count, "quarantined": 0}
    write_json(workspace.path("pool", BATCH, "manifest.json"), manifest)
    write_parquet(workspace.path("pool", BATCH, "quarantine.parquet"), QUARANTINE.empty_table())
    path = table.table_path(workspace, BATCH, manifest, scorers)
    table.write_table(path, scorers, _parts(count, table.schema(scorers), policy))
    return workspace


def _parts(count: int, schema: pa.Schema, policy: Policy) -> Iterator[pa.Table]:
    rng = np.random.default_rng(0)
    chosen = pa.schema([f for f in schema if f.name != "draw"])
    for first in range(0, count, 50_000):
        yield rows(rng, min(50_000, count - first), chosen, first, policy)


def without_sketches(policy: Policy) -> Policy:
    """The policy without what compares sketches of pictures: synthetic rows have none."""

    def plain(stage: Stage) -> Stage:
        filters = (replace(f, agreement=None) if f.check == "duplicates" else f for f in stage.filters)
        return replace(stage, filters=tuple(f for f in filters if f.check != "copies"))

    return replace(policy, stages=tuple(map(plain, policy.stages)))


def rethreshold(folder: Path, count: int, policy: Policy) -> dict[str, float]:
    """Seconds of the first funnel (which finds the duplicates), of a changed one, and of a what-if."""
    workspace = pool_of(folder, count, policy)
    seconds, began = [_timed(lambda: funnel(workspace, policy))], time.process_time()
    for step in range(5):
        changed = policy.replace("S4.image_quality.min", 110.0 + step).replace("S1.entropy.min", 2.0 + step / 10)
        seconds.append(_timed(partial(funnel, workspace, changed)))
    cpu = (time.process_time() - began) / 5
    decided = _timed(lambda: judge(workspace, policy, configure(policy)[0]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    compare = _timed(lambda: what_if(workspace, Basis(policy), policy.replace("S4.compression.min", 80)))
    changed_s = statistics.median(seconds[1:])
    times = {"first_s": seconds[0], "rethreshold_s": changed_s, "cpu_s": cpu, "what_if_s": compare}
    return times | {"decide_s": decided, "gib": peak}


def compact(folder: Path, count: int, policy: Policy) -> float:
    """Wall seconds per 1,000 shards to gather the pool and score files of `count` shards of 64 rows into a table."""
    workspace, scorers = Workspace(folder), configure(policy)[0]
    rng = np.random.default_rng(0)
    fields = pa.schema([f for f in table.schema(scorers) if f.name != "draw"])
    listed = []
    for number in range(count):
        path = workspace.path("pool", BATCH, f"{number:05d}.parquet")
        shard_rows = rows(rng, SHARD_ROWS, fields, number * SHARD_ROWS, policy)
        write_parquet(path, _filled(shard_rows, POOL))
        listed.append({"path": path.name, "rows": SHARD_ROWS, "bytes": 0, "sha256": f"{number:064x}"})
        for name, scorer in scorers.items():
            shard = Shard(key := f"{BATCH}-{path.stem}", path, SHARD_ROWS, "", pack=key)
            named = shard_rows.rename_columns([c.removeprefix(f"{name}.") for c in shard_rows.column_names])
            own = pa.schema([*SCORE_KEYS, *scorer.fields])
            write_parquet(score_path(workspace, scorer, shard), _filled(named, own))
    write_json(workspace.path("pool", BATCH, "manifest.json"), {"shards": listed, "rows": 0, "quarantined": 0})
    return _timed(lambda: table.tables(workspace, scorers)) / count * 1000


def _filled(source: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`, null if the source lacks them."""
    columns = [
        source[f.name].cast(f.type) if f.name in source.column_names else pa.nulls(len(source), f.type) for f in schema
    ]
    return pa.table(columns, schema=pa.schema([f.with_nullable(True) for f in schema]))


def _timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


NEARDUP = """
import json, resource, sys, time
import numpy as np
from curation.decide.dedup import related
from curation.decide.thumbnails import Thumbnails
n, radius = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
hashes = rng.integers(0, 2**64, n, dtype=np.uint64)
planted = n // 20
bits = np.uint64(1) << rng.integers(0, 64, (radius, planted)).astype(np.uint64)
hashes[-planted:] = hashes[:planted] ^ np.bitwise_xor.reduce(bits, axis=0)
began, used = time.perf_counter(), time.process_time()
alike = related(hashes, Thumbnails(n, 0), np.zeros(n, np.int64), hamming=radius, colour=0)
seconds, cpu = time.perf_counter() - began, time.process_time() - used
pairs = set(zip(*alike.near.T.tolist())) | set(zip(alike.representatives.tolist(), alike.rows.tolist()))
missed = sum((i, n - planted + i) not in pairs for i in range(planted))
gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"s": seconds, "cpu_s": cpu, "gib": gib, "missed": missed}))
"""


def neardup(count: int, radius: int) -> dict[str, float]:
    """Seconds, peak GiB and missed planted pairs of a search among `count` hashes, in a separate process."""
    command = [sys.executable, "-c", NEARDUP, str(count), str(radius)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout)


def main() -> None:
    """Print the figures, and as the last line all of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--hashes", type=int, default=10_000_000)
    parser.add_argument("--shards", type=int, default=200, help="shards of 64 rows to gather into a table")
    arguments = parser.parse_args()
    policy = without_sketches(load_policy("qwen-image-2"))
    with tempfile.TemporaryDirectory() as scratch:
        thresholds = rethreshold(Path(scratch, "rows"), arguments.rows, policy)
        gathered = compact(Path(scratch, "shards"), arguments.shards, policy)
    alike = {"": neardup(arguments.hashes, 4), "8bit_": neardup(arguments.hashes, 8)}
    million, hashes = _label(arguments.rows), _label(arguments.hashes)
    figures = {
        f"rethreshold_{million}_s": round(thresholds["rethreshold_s"], 3),
        f"rethreshold_{million}_cpu_s": round(thresholds["cpu_s"], 3),
        f"first_funnel_{million}_s": round(thresholds["first_s"], 2),
        f"what_if_{million}_s": round(thresholds["what_if_s"], 2),
        f"decide_{million}_s": round(thresholds["decide_s"], 1),
        f"decide_{million}_gib": round(thresholds["gib"], 2),
        "compact_s_per_1k": round(gathered, 2),
        **{f"neardup_{hashes}_{r}{k}": round(a[k], 2) for r, a in alike.items() for k in ("s", "cpu_s", "gib")},
        "neardup_missed": sum(a["missed"] for a in alike.values()),
    }
    for name, value in figures.items():
        print(f"{name:<24}{value:>10}")
    print(json.dumps(figures))


def _label(count: int) -> str:
    return f"{count // 1_000_000}m" if count % 1_000_000 == 0 else f"{count // 1000}k"


if __name__ == "__main__":
    main()
