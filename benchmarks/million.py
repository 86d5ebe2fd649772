"""A million small pictures, in by one command: how long `flywheel curate` takes with two workers, in how much memory.

python -m benchmarks.million [--rows 1000000] [--photos DIR]

Each picture joins crops of four photographs in a square of 256 pixels, so that none is a copy of another, though each
shows parts of others; they come in tars of 10,000 with a caption each. The command is run from the start with half of
them and with all: what fewer than a million rows take is extrapolated by the difference.

million_hours: wall hours for a million. cpu_hours: CPU-hours of the process tree for a million. driver_gib, tree_gib:
peak memory of the command's own process, and of all its processes, pages they share counted in each. memory_ratio:
tree_gib of all rows over that of half of them (flat: 1.2 at most). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
from PIL import Image, ImageOps

from benchmarks.end_to_end import FLYWHEEL, PHOTOS
from benchmarks.measure import Watched

MILLION = 1_000_000
TAR = 10_000  # pictures of a tar
SIDE = 256  # pixels, of each picture
_LARGE = 512  # pixels: long side at which photographs are kept, to crop from


class Run(NamedTuple):
    """A command's wall seconds and CPU-seconds, and the peak memory of its own process and of the tree, GiB."""

    wall: float
    cpu: float
    driver: float
    tree: float


def write_tars(photos: Sequence[Path], folder: Path, count: int) -> None:
    """Tars of `count` pictures, each with its caption."""
    folder.mkdir(parents=True)
    captions = {r["file"]: r["caption"] for r in map(json.loads, (photos[0].parent / "captions.jsonl").open())}
    known = [(_reduced(path), captions[path.name]) for path in photos]
    for first in range(0, count, TAR):
        with tarfile.open(folder / f"{first // TAR:05d}.tar", "w") as tar:
            for number in range(first, min(first + TAR, count)):
                image, caption = _joined(known, random.Random(number))
                for suffix, data in (("jpg", image), ("txt", caption.encode())):
                    member = tarfile.TarInfo(f"{number:07d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def _reduced(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return ImageOps.contain(picture.convert("RGB"), (_LARGE, _LARGE))


def _joined(known: Sequence[tuple[Image.Image, str]], rng: random.Random) -> tuple[bytes, str]:
    """(JPEG, caption) of crops of four photographs in a square."""
    chosen, half = rng.sample(known, 4), SIDE // 2
    square = Image.new("RGB", (SIDE, SIDE))
    for n, (photo, _) in enumerate(chosen):
        side = round(min(photo.size) * rng.uniform(0.5, 1.0))
        x, y = (rng.randint(0, size - side) for size in photo.size)
        crop = photo.resize((half, half), Image.Resampling.BICUBIC, (x, y, x + side, y + side))
        square.paste(ImageOps.mirror(crop) if rng.random() < 0.5 else crop, (n % 2 * half, n // 2 * half))
    out = io.BytesIO()
    square.save(out, "JPEG", quality=92)
    return out.getvalue(), " and ".join(caption for _, caption in chosen)


def curate(source: Path, workspace: Path) -> Run:
    """Run the command from the start."""
    command = [FLYWHEEL, "curate", "--source", source, "-w", workspace, "--workers", "2"]
    began, driver = time.perf_counter(), 0
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen([str(c) for c in command], stdout=log, stderr=log)
        watched = Watched(process)
        while process.poll() is None:
            driver = max(driver, watched.look())
            time.sleep(0.2)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(log.read().decode(errors="replace")[-2000:])
    return Run(time.perf_counter() - began, watched.cpu, driver / 2**30, watched.peak / 2**30)


def main() -> None:
    """Print the table, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=MILLION, help="pictures, at least 2")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="JPEGs to crop, with captions.jsonl")
    a = parser.parse_args()
    photos = sorted(a.photos.glob("*.jpg"))
    if not photos:
        raise SystemExit(f"{a.photos} has no .jpg: give --photos DIR, which also holds captions.jsonl")
    print(f"{'pictures':>9}{'wall s':>9}{'CPU s':>9}{'driver GiB':>12}{'tree GiB':>10}")
    runs = []
    scratch = Path(tempfile.mkdtemp(prefix="million-"))
    try:
        for count in (a.rows // 2, a.rows):
            write_tars(photos, scratch / "pictures", count)
            runs.append(run := curate(scratch / "pictures", scratch / "w"))
            print(f"{count:>9,}{run.wall:>9.0f}{run.cpu:>9.0f}{run.driver:>12.2f}{run.tree:>10.2f}", flush=True)
            for path in (scratch / "pictures", scratch / "w"):
                shutil.rmtree(path)
    finally:
        shutil.rmtree(scratch)
    half, whole = runs
    more = (MILLION - a.rows) / (a.rows - a.rows // 2)
    figures = {
        "rows": a.rows,
        "million_hours": (whole.wall + more * (whole.wall - half.wall)) / 3600,
        "cpu_hours": (whole.cpu + more * (whole.cpu - half.cpu)) / 3600,
        "driver_gib": whole.driver,
        "tree_gib": whole.tree,
        "memory_ratio": whole.tree / half.tree,
    }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
