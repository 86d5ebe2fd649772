"""The loader against webdataset, MosaicML streaming and Hugging Face datasets: samples per CPU-second; resume; memory.

python benchmarks/loader.py [--rows 2048] [--repeats 5] [--webdataset PYTHON] [--hf PYTHON] [--mds PYTHON]

Every side gives one shuffled epoch of the same latents (float32 64×32×16, 131 KB) as tensors of 32 rows with their ids,
from its own best format on disk, in one process with one thread; its data are written beforehand. Each side runs in a
process of its own, they take turns, and a side that lost or changed a row is an error. PYTHON: an interpreter that has
that library (this one unless told); where it has not, the column stays empty. resume_ms: from nothing to the rows of a
batch at a random point of a plan of 1,000,000 rows, manifest read and files checked for size; plan_bytes_per_row: what
that plan holds in memory. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

import numpy as np

SHAPE = (64, 32, 16)
BATCH = 32
FILE_ROWS = 512
PLAN_ROWS, PLAN_FILE_ROWS = 1_000_000, 4096
SIDES = {"ours": "image-flywheel", "webdataset": "webdataset", "mds": "MosaicML streaming", "hf": "HF datasets, map"}
Batch = tuple[list[str], Any]  # ids, tensor [n, *SHAPE]
Epochs = Callable[[int], Iterator[Batch]]


def latent(row: int) -> np.ndarray:
    """The data: a function of the row number."""
    return np.random.default_rng(row).standard_normal(SHAPE, dtype=np.float32)


# The sides: each writes its format once, then gives epochs ----------------------------------------------------------
def ours(folder: Path, rows: int) -> Epochs:
    """Latents in side-cars of the shards, read by row group in the plan's order."""
    import torch

    from training.data.latents import Latents, encoded
    from training.data.loader import Loader, Prepared
    from training.data.plan import DataPlan, MixSource

    state = torch.zeros(1, 1)
    plan = DataPlan([MixSource(manifest=folder / "manifest.json")], batch={512: BATCH}, t2i_share=1.0, seed=0)
    latents = Latents(folder / "latents", "numbered", {})

    def prepare(group: Any) -> Prepared:
        return Prepared(*encoded(group, None), [state] * len(group.captions))

    # Room for the eight row groups that are shuffled together, and some: far less than an epoch.
    loader = Loader(plan, prepare, resolution={}, latents=latents, cache_bytes=96 << 20)

    def epoch(number: int) -> Iterator[Batch]:
        # Whole batches of the plan's own epoch: one that holds rows of two epochs may hold a row twice.
        for t in range(-(-number * plan.rows // BATCH), (number + 1) * plan.rows // BATCH):
            for micro in map(loader.gather, plan.batch(t)):
                yield [f"{r.shard * FILE_ROWS + r.group * 64 + r.row}" for r in micro.rows], micro.latents

    return epoch


def write_ours(folder: Path, rows: int) -> None:
    """Plain shards, and their side-cars by the pass that users run; the encoder numbers its rows."""
    import io

    import pyarrow as pa
    import torch
    from PIL import Image

    from flywheel.core.files import file_digest, write_json, write_parquet
    from flywheel.core.schema import SHARD
    from training.data.latents import Latents, write_latents
    from training.data.plan import read_manifest

    class Numbered:
        """Latents are those of the row number, whatever the image."""

        fingerprint = "numbered"
        done = 0

        def encode(self, images: torch.Tensor) -> torch.Tensor:
            self.done += len(images)
            return torch.from_numpy(np.stack([latent(i) for i in range(self.done - len(images), self.done)]))

    buffer, files = io.BytesIO(), []
    Image.new("RGB", (256, 512), "white").save(buffer, "PNG")
    fixed = {"task": "t2i", "caption": "a card", "image": buffer.getvalue(), "references": [], "slice": "base"}
    for number in range(rows // FILE_ROWS):
        path = folder / f"{number:05d}.parquet"
        part = [{"sample_id": f"{number * FILE_ROWS + i}", **fixed} for i in range(FILE_ROWS)]
        write_parquet(path, pa.Table.from_pylist(part, schema=SHARD), row_group_size=64)
        files.append(entry(path.name, file_digest(path), path.stat().st_size, FILE_ROWS))
    write_json(folder / "manifest.json", {"snapshot": "benchmark", "files": files})
    shards = read_manifest(folder / "manifest.json")
    write_latents(shards, Numbered(), Latents(folder / "latents", Numbered.fingerprint, {}))


def entry(name: str, sha256: str, size: int, rows: int) -> dict[str, Any]:
    """One file of a manifest."""
    layout = {"bucket": 512, "width": 256, "height": 512, "task": "t2i", "references": 0, "stages": ["S1"]}
    return {"path": name, "sha256": sha256, "bytes": size, "rows": rows, **layout}


def webdataset(folder: Path, rows: int) -> Epochs:
    """Tar files of raw values, shuffled by file and in a buffer of 512."""
    import torch
    import webdataset as wds

    if not folder.exists():
        folder.mkdir()
        with wds.ShardWriter(str(folder / "%05d.tar"), maxcount=FILE_ROWS, verbose=0) as sink:
            for row in range(rows):
                sink.write({"__key__": f"{row}", "bin": latent(row).tobytes()})
    urls = [str(p) for p in sorted(folder.glob("*.tar"))]

    def epoch(number: int) -> Iterator[Batch]:
        data = wds.WebDataset(urls, shardshuffle=len(urls), seed=number, empty_check=False).shuffle(FILE_ROWS)
        parsed = data.map(lambda s: (s["__key__"], np.frombuffer(s["bin"], np.float32).reshape(SHAPE)))
        for keys, values in parsed.batched(BATCH, collation_fn=lambda batch: tuple(zip(*batch, strict=True))):
            yield list(keys), torch.from_numpy(np.stack(values))

    return epoch


def mds(folder: Path, rows: int) -> Epochs:
    """MosaicML's format, shuffled by its own algorithm, through torch's DataLoader without workers."""
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    if not folder.exists():
        columns = {"id": "str", "latent": f"ndarray:float32:{','.join(map(str, SHAPE))}"}
        with MDSWriter(out=str(folder), columns=columns) as out:
            for row in range(rows):
                out.write({"id": f"{row}", "latent": latent(row)})
    data = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH, num_canonical_nodes=1)
    loader = DataLoader(data, batch_size=BATCH)

    def epoch(number: int) -> Iterator[Batch]:
        for batch in loader:
            yield batch["id"], batch["latent"]

    return epoch


def hf(folder: Path, rows: int) -> Epochs:
    """A prebuilt Arrow copy, mapped into memory; batches of a random permutation are taken from it as Arrow."""
    import torch
    from datasets import Dataset, Features, Sequence, Value, load_from_disk

    if not folder.exists():
        features = Features({"id": Value("string"), "latent": Sequence(Value("float32"), length=int(np.prod(SHAPE)))})

        def numbered() -> Iterator[dict[str, Any]]:
            yield from ({"id": f"{row}", "latent": latent(row).ravel()} for row in range(rows))

        Dataset.from_generator(numbered, features=features, cache_dir=str(folder.with_name("hf-cache"))).save_to_disk(
            str(folder)
        )
    data = load_from_disk(str(folder)).with_format("arrow")

    def epoch(number: int) -> Iterator[Batch]:
        order = np.random.default_rng(number).permutation(rows)
        for start in range(0, rows, BATCH):
            table = data[order[start : start + BATCH]]
            values = np.concatenate([c.flatten().to_numpy() for c in table["latent"].chunks])
            yield table["id"].to_pylist(), torch.from_numpy(values.reshape(-1, *SHAPE))

    return epoch


# One side in its process --------------------------------------------------------------------------------------------
def serve(side: str, folder: Path, rows: int) -> None:
    """Write the data, then measure an epoch for every line of standard input: CPU-seconds and rows, as JSON."""
    import torch

    torch.set_num_threads(1)
    epochs = {"ours": ours, "webdataset": webdataset, "mds": mds, "hf": hf}[side](folder / side, rows)
    expected = {f"{row}": float(latent(row)[0, 0, 0]) for row in range(rows)}
    print("ready", flush=True)
    for number, _ in enumerate(sys.stdin):
        sample_ids, firsts, clock, wall = [], [], time.process_time(), time.monotonic()
        for ids, values in epochs(number):
            sample_ids += ids
            firsts.append(values[:, 0, 0, 0].clone())  # a view would keep every batch
        cpu, wall = time.process_time() - clock, time.monotonic() - wall
        values_read = dict(zip(sample_ids, torch.cat(firsts).tolist(), strict=True))
        complete = len(values_read) == len(sample_ids) >= rows * 63 // 64 // BATCH * BATCH  # ours holds out a row in 64
        exact = all(expected[k] == v for k, v in values_read.items())
        print(json.dumps({"cpu": cpu, "wall": wall, "rows": len(sample_ids), "right": complete and exact}), flush=True)


def measure(folder: Path, rows: int, repeats: int, pythons: dict[str, str]) -> dict[str, tuple[float, float]]:
    """Samples per CPU-second and per second of every side that can run: medians of interleaved epochs."""
    command = ["--folder", str(folder), "--rows", str(rows), "--side"]
    running: dict[str, subprocess.Popen[str]] = {}
    for side, python in pythons.items():
        worker = subprocess.Popen(
            [python, __file__, *command, side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_NUM_THREADS": "1"},
        )
        lines = iter(worker.stdout.readline, "")
        if any(line == "ready\n" for line in lines):
            running[side] = worker
        else:
            print(f"{SIDES[side]}: left out: {worker.stderr.read().strip().splitlines()[-1:]}")
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in running}
    for repeat in range(repeats + 1):
        for side, worker in running.items():
            worker.stdin.write("\n")
            worker.stdin.flush()
            result = json.loads(worker.stdout.readline())
            if not result["right"]:
                raise RuntimeError(f"{SIDES[side]} lost or changed rows: {result}")
            if repeat:  # the first one warms up
                results[side].append(result)
    for worker in running.values():
        worker.communicate()
    return {
        side: tuple(statistics.median(r["rows"] / r[clock] for r in epochs) for clock in ("cpu", "wall"))
        for side, epochs in results.items()
    }


# Resume -------------------------------------------------------------------------------------------------------------
def big_plan(folder: Path) -> tuple[float, float]:
    """(milliseconds to resume, bytes a row) of a plan of a million rows: medians of fresh plans at random points."""
    from flywheel.core.files import write_json
    from training.data.plan import DataPlan, MixSource

    folder.mkdir()
    files = []
    for number, start in enumerate(range(0, PLAN_ROWS, PLAN_FILE_ROWS)):
        count = min(PLAN_FILE_ROWS, PLAN_ROWS - start)
        path = folder / f"{number:05d}.parquet"
        with open(path, "wb") as file:
            file.truncate(count * 100_000)  # takes no space; nothing reads it
        files.append(entry(path.name, f"{number:064x}", count * 100_000, count))
    write_json(folder / "manifest.json", {"snapshot": "benchmark", "files": files})

    def resumed(t: int) -> DataPlan:
        plan = DataPlan([MixSource(manifest=folder / "manifest.json")], batch={512: 256}, t2i_share=1.0, seed=0)
        plan.batch(t)
        return plan

    points, spent = random.Random(0), []
    resumed(0)
    for _ in range(9):
        gc.collect()
        clock = time.process_time()
        resumed(points.randrange(10**6))
        spent.append(time.process_time() - clock)
    gc.collect()
    tracemalloc.start()
    plan = resumed(10**6)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return statistics.median(spent) * 1000, held / plan.rows


def main() -> None:
    """Print the table, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048, help=f"a multiple of {FILE_ROWS}")
    parser.add_argument("--repeats", type=int, default=5)
    for side in ("webdataset", "hf", "mds"):
        parser.add_argument(f"--{side}", default=sys.executable, metavar="PYTHON", help=f"has {SIDES[side]}")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        serve(arguments.side, arguments.folder, arguments.rows)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "ours").mkdir()
        write_ours(folder / "ours", arguments.rows)
        resume, memory = big_plan(folder / "plan")
        pythons = {"ours": sys.executable} | {s: getattr(arguments, s) for s in ("webdataset", "mds", "hf")}
        rates = measure(folder, arguments.rows, arguments.repeats, pythons)
    print(f"{'':<20}{'samples/CPU-s':>14}{'samples/s':>11}{'ours is':>9}")
    ratios = {}
    for side, name in SIDES.items():
        if side not in rates:
            print(f"{name:<20}{'–':>14}")
            continue
        cpu, wall = rates[side]
        ratios[side] = rates["ours"][0] / cpu
        print(f"{name:<20}{cpu:>14,.0f}{wall:>11,.0f}{ratios[side]:>8.2f}×")
    print(f"resume a plan of {PLAN_ROWS:,} rows: {resume:.1f} ms of CPU; {memory:.1f} bytes a row")
    figures = {
        "loader_samples_per_cpu_s": round(rates["ours"][0]),
        **{f"loader_vs_{s}": round(ratios[s], 2) if s in ratios else None for s in ("webdataset", "mds")},
        "loader_vs_hf_map": round(ratios["hf"], 2) if "hf" in ratios else None,
        "resume_ms": round(resume, 1),
        "plan_bytes_per_row": round(memory, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
