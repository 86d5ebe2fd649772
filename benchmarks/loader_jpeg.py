"""The loader as most people run theirs: JPEG shards to tensors, beside webdataset and Hugging Face datasets.

python benchmarks/loader_jpeg.py [--rows 1024] [--side 512] [--repeats 5]

Every side gives one shuffled epoch of the same pictures (JPEG, quality 95, 4:4:4, as shards hold them) as uint8 tensors
of 32 pictures with their captions, from its own format on disk, in this process; they take turns; CPU-seconds count.
`decode` is decoding alone: the same files in memory, by the fastest decoder here, into one tensor. webdataset and
datasets decode as they do by themselves, with Pillow; `webdataset_float` to float32, which training needs, as
`ours_float` does. A side that lost or changed a picture is an error. loader_jpeg_share: our rate over that of decoding
alone (goal 0.9); loader_jpeg_vs_webdataset: over webdataset's (goal 1.5). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

BATCH, FILE_ROWS, GROUP_ROWS, WINDOW = 32, 256, 64, 2  # rows, rows, rows, row groups
Batch = tuple[list[str], torch.Tensor]  # captions, uint8 [n, 3, H, W]
Epochs = Callable[[int], Iterator[Batch]]


def photograph(row: int, side: int) -> bytes:
    """A JPEG of large and small structure, a function of the row number."""
    rng = np.random.default_rng(row)
    coarse, fine = (rng.integers(0, 256, (n, n, 3), np.uint8) for n in (8, side // 4))
    layers = [Image.fromarray(x).resize((side, side), Image.Resampling.BICUBIC) for x in (coarse, fine)]
    buffer = io.BytesIO()
    Image.blend(*layers, 0.15).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def ours(folder: Path, files: list[bytes], side: int, *, floats: bool = False) -> Epochs:
    """Shards, read by the plan's order. floats: in [-1, 1], as autoencoders get them."""
    import pyarrow as pa

    from benchmarks.loader import entry
    from flywheel.core.files import file_digest, write_json, write_parquet
    from flywheel.core.schema import SHARD
    from training.data.loader import Loader, Prepared
    from training.data.plan import DataPlan, MixSource
    from training.data.row_group import RowGroup, to_unit

    folder.mkdir()
    listed = []
    for start in range(0, len(files), FILE_ROWS):
        rows = [
            {
                "sample_id": f"{n}",
                "caption": f"{n}",
                "image": files[n],
                "task": "t2i",
                "references": [],
                "slice": "base",
            }
            for n in range(start, min(len(files), start + FILE_ROWS))
        ]
        path = folder / f"{start:05d}.parquet"
        write_parquet(
            path, pa.Table.from_pylist(rows, SHARD), row_group_size=GROUP_ROWS, encoded=("image", "references")
        )
        listed.append(
            entry(path.name, file_digest(path), path.stat().st_size, len(rows)) | {"width": side, "height": side}
        )
    write_json(folder / "manifest.json", {"snapshot": "benchmark", "files": listed})
    plan = DataPlan(
        [MixSource(manifest=folder / "manifest.json")], batch={512: BATCH}, t2i_share=1.0, seed=0, window=WINDOW
    )
    state = torch.zeros(1, 1)  # texts are not encoded here, nor are they by the others

    def prepare(group: RowGroup) -> Prepared:
        return Prepared(group.images, group.references, [state] * len(group.captions))

    room = (WINDOW + 1) * GROUP_ROWS * 3 * side**2  # for the row groups that are shuffled together: not for an epoch
    loader = Loader(plan, prepare, resolution={}, cache_bytes=room)

    def epoch(number: int) -> Iterator[Batch]:
        loader._cache.clear()  # of the epoch before
        loader._held = 0
        steps = range(-(-number * plan.rows // BATCH), (number + 1) * plan.rows // BATCH)
        for t in steps:
            (rows,) = plan.batch(t)
            micro = loader.gather(rows)
            loader.expect(plan.batch(t + 1) if t + 1 in steps else [])  # reads ahead, not into the others' turns
            names = [f"{r.shard * FILE_ROWS + r.group * GROUP_ROWS + r.row}" for r in micro.rows]
            yield names, to_unit(micro.latents) if floats else micro.latents

    return epoch


def webdataset(folder: Path, files: list[bytes], side: int, *, floats: bool = False) -> Epochs:
    """Tar files, shuffled by file and in a buffer, decoded by the library's `rgb8`; floats: by its `torchrgb`."""
    import webdataset as wds

    folder.mkdir()
    with wds.ShardWriter(str(folder / "%05d.tar"), maxcount=FILE_ROWS, verbose=0) as sink:
        for row, data in enumerate(files):
            sink.write({"__key__": f"{row}", "jpg": data, "txt": f"{row}"})
    urls = [str(p) for p in sorted(folder.glob("*.tar"))]

    def epoch(number: int) -> Iterator[Batch]:
        data = wds.WebDataset(urls, shardshuffle=len(urls), seed=number, empty_check=False).shuffle(FILE_ROWS)
        decoded = data.decode("torchrgb" if floats else "rgb8").to_tuple("txt", "jpg")
        for captions, pictures in decoded.batched(BATCH, collation_fn=_columns):
            stacked = torch.stack(pictures) if floats else torch.from_numpy(np.stack(pictures)).movedim(-1, 1)
            yield list(captions), stacked

    return epoch


def hf(folder: Path, files: list[bytes], side: int) -> Epochs:
    """An Arrow copy with the library's `Image` feature, as NumPy arrays, taken in a random order."""
    from datasets import Dataset, Features, Value
    from datasets import Image as Picture

    rows = {"caption": [f"{n}" for n in range(len(files))], "image": [{"bytes": d, "path": None} for d in files]}
    features = Features({"caption": Value("string"), "image": Picture()})
    Dataset.from_dict(rows, features=features).save_to_disk(str(folder))
    data = Dataset.load_from_disk(str(folder)).with_format("numpy")

    def epoch(number: int) -> Iterator[Batch]:
        order = np.random.default_rng(number).permutation(len(files))
        for start in range(0, len(files), BATCH):
            part = data[order[start : start + BATCH]]
            yield [str(c) for c in part["caption"]], torch.from_numpy(np.stack(list(part["image"]))).movedim(-1, 1)

    return epoch


def decode(folder: Path, files: list[bytes], side: int) -> Epochs:
    """Decoding alone."""
    import simplejpeg

    room = np.empty((BATCH, side, side, 3), np.uint8)

    def epoch(number: int) -> Iterator[Batch]:
        order = random.Random(number).sample(range(len(files)), len(files))
        for start in range(0, len(files), BATCH):
            rows = order[start : start + BATCH]
            pixels = room[: len(rows)]
            for place, row in zip(pixels, rows, strict=True):
                simplejpeg.decode_jpeg(files[row], "RGB", buffer=place)
            yield [f"{row}" for row in rows], torch.from_numpy(pixels).movedim(-1, 1)

    return epoch


SIDES: dict[str, Callable[[Path, list[bytes], int], Epochs]] = {
    "ours": ours,
    "decode": decode,
    "webdataset": webdataset,
    "hf": hf,
    "ours_float": partial(ours, floats=True),
    "webdataset_float": partial(webdataset, floats=True),
}
LEVELS = {"ours_float": lambda x: (x + 1) * 127.5, "webdataset_float": lambda x: x * 255}  # to those of uint8


def _columns(batch: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(zip(*batch, strict=True))


def measure(rows: int, side: int, repeats: int) -> dict[str, list[float]]:
    """Pictures per CPU-second of every side whose library is here, in each round. Errors: `RuntimeError`."""
    files = [photograph(row, side) for row in range(rows)]
    expected = [np.asarray(Image.open(io.BytesIO(data)))[side // 2, side // 3] for data in files]
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        opened = {}
        for name, make in SIDES.items():
            try:
                opened[name] = make(Path(scratch, name), files, side)
            except ImportError as error:
                print(f"{name}: left out: {error}")
        for number in range(repeats + 1):
            for name, epochs in opened.items():
                clock, seen = time.process_time(), {}
                for captions, pictures in epochs(number):
                    values = LEVELS.get(name, torch.clone)(pictures[:, :, side // 2, side // 3])
                    seen |= zip(captions, values.round().to(torch.uint8).tolist(), strict=True)
                spent = time.process_time() - clock
                wrong = [row for row, value in seen.items() if value != expected[int(row)].tolist()]
                if wrong or len(seen) < rows * (GROUP_ROWS - 1) // GROUP_ROWS // BATCH * BATCH:
                    raise RuntimeError(
                        f"{name} lost or changed pictures: {len(seen)} of {rows} seen, {wrong[:3]} differ"
                    )
                if number:  # the first one warms up
                    rates.setdefault(name, []).append(len(seen) / spent)
    return rates


def ratio(above: list[float], below: list[float]) -> float:
    """Median over the rounds: what slows down one side of a round slows down the other."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def main() -> None:
    """Print the table, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rates = measure(arguments.rows, arguments.side, arguments.repeats)
    own = {name: rates["ours_float" if name.endswith("_float") else "ours"] for name in rates}
    against = {name: ratio(own[name], values) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:<18}{statistics.median(values):>10,.0f} pictures/CPU-s{against[name]:>8.2f}×")
    figures = {"loader_jpeg_per_cpu_s": round(statistics.median(rates["ours"]))}
    figures["loader_jpeg_share"] = round(against["decode"], 3)
    figures |= {
        f"loader_jpeg_vs_{n}": round(against[n], 2) for n in ("webdataset", "webdataset_float", "hf") if n in rates
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
