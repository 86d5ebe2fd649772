"""What a person waits for: one cold `flywheel curate`, as a whole command, beside what they would use instead.

python -m benchmarks.end_to_end [--counts 250 1000 4000] [--megapixels 0.2 1] [--peers DIR] [--photos DIR]

CPU-seconds are those of the whole process tree from start to end, daemons included, sampled ten times a second; what a
process uses in its last tenth is left out. Contenders take turns on the same files, with two processes each. For 250
pictures, each is a crop of a photograph of `--photos`; the further ones join crops of four photographs in a square, so
that none is a copy of another.

ours         `flywheel curate`: every check of the default policy that has weights here, duplicates, shards, funnel
script       `benchmarks/peers/plain_script.py`: decode once, the same statistics, the same NSFW network, duplicates,
             shards, with multiprocessing; it keeps no reasons, resumes nothing and reads well-formed JPEGs only
datajuicer   `dj-process`: shape, aspect ratio, file size, duplicates by perceptual hash; no NSFW network, no shards
alike        `flywheel curate` with the filters that Data-Juicer has too (`benchmarks/alike.toml`), shards included
cleanvision  all of its issue types; no NSFW network, no shards

--peers DIR holds a virtual environment per peer, DIR/datajuicer and DIR/cleanvision; a missing one leaves its rows out.
Afterwards ours runs again on the unchanged pool (`unchanged_cpu_s`), and with twelve more photographs
(`few_new_cpu_s`), beside the 1,000 of the first size.

cold_250_vs_script: CPU-seconds of ours over those of the script, for 250 photographs of the first size.
slope_vs_script: CPU-seconds of each further photograph of ours over those of the script, the worse of the sizes.
cold_1000_vs_datajuicer: CPU-seconds of Data-Juicer over ours, for 1,000 photographs of the first size.
alike_1000_vs_datajuicer: the same over ours with the same filters.
cold_1000_vs_cleanvision: CPU-seconds of CleanVision over ours, for 1,000 photographs of the first size.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from benchmarks.measure import PEERS, Cost, whole

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
ALIKE = Path(__file__).with_name("alike.toml")
FLYWHEEL = Path(sys.executable).with_name("flywheel")
NEW = 12  # photographs that arrive later


def photographs(photos: Sequence[Path], folder: Path, numbers: range, megapixels: float) -> None:
    """Write a JPEG of this many megapixels for each number, and its line of captions in a file beside the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = map(json.loads, (photos[0].parent / "captions.jsonl").read_text().splitlines())
    captions = {row["file"]: row["caption"] for row in rows}
    with open(_captions(folder), "a") as lines:
        for number in numbers:
            rng = random.Random(number)
            chosen = [photos[number]] if number < len(photos) else rng.sample(list(photos), 4)
            side = round((megapixels * 1e6 / len(chosen)) ** 0.5)
            cells = [_crop(path, rng, (side * 5 // 4, side * 4 // 5)) for path in chosen]
            out = io.BytesIO()
            _joined(cells).save(out, "JPEG", quality=92)
            (folder / f"{number:06d}.jpg").write_bytes(out.getvalue())
            caption = " and ".join(captions[path.name] for path in chosen)
            lines.write(json.dumps({"file": f"{number:06d}.jpg", "caption": caption}, ensure_ascii=False) + "\n")


def _captions(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.jsonl")


def _crop(path: Path, rng: random.Random, size: tuple[int, int]) -> Image.Image:
    """The largest crop of this shape at a random place, flipped or not, at this size."""
    with Image.open(path) as picture:
        centring = (rng.random(), rng.random())
        crop = ImageOps.fit(picture.convert("RGB"), size, Image.Resampling.BICUBIC, centering=centring)
    return ImageOps.mirror(crop) if rng.random() < 0.5 else crop


def _joined(cells: Sequence[Image.Image]) -> Image.Image:
    """One picture as it is, or four in a square."""
    if len(cells) == 1:
        return cells[0]
    width, height = cells[0].size
    out = Image.new("RGB", (2 * width, 2 * height))
    for n, cell in enumerate(cells):
        out.paste(cell, (n % 2 * width, n // 2 * height))
    return out


def ours(folder: Path, out: Path) -> list[str | Path]:
    """The command as the README has it."""
    return [FLYWHEEL, "curate", "--source", folder, "--captions", _captions(folder), "-w", out]


def script(folder: Path, out: Path) -> list[str | Path]:
    """The plain script, with two processes."""
    return [sys.executable, PEERS / "plain_script.py", folder, _captions(folder), out, "2"]


def datajuicer(folder: Path, out: Path, peers: Path) -> list[str | Path]:
    """Data-Juicer's own command, on a list of the pictures."""
    out.mkdir()
    rows = [{"text": "<__dj__image>", "images": [str(p)]} for p in sorted(folder.iterdir())]
    (out / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    operators = [
        {"image_shape_filter": {"min_width": 1, "min_height": 1}},
        {"image_aspect_ratio_filter": {"min_ratio": 0.01, "max_ratio": 100}},
        {"image_size_filter": {"min_size": "1kb", "max_size": "100mb"}},
        {"image_deduplicator": {"method": "phash"}},
    ]
    config = {"dataset_path": str(out / "in.jsonl"), "export_path": str(out / "out.jsonl"), "np": 2}
    (out / "config.yaml").write_text(json.dumps(config | {"process": operators, "use_cache": False}))
    return [peers / "datajuicer" / "bin" / "dj-process", "--config", out / "config.yaml"]


def cleanvision(folder: Path, out: Path, peers: Path) -> list[str | Path]:
    """CleanVision's example, with two processes."""
    code = f"from cleanvision import Imagelab; Imagelab(data_path={str(folder)!r}).find_issues(n_jobs=2)"
    return [peers / "cleanvision" / "bin" / "python", "-c", code]


def contenders(folder: Path, scratch: Path, peers: Path | None) -> dict[str, tuple[list[str | Path], Path]]:
    """{name: (command, folder that it writes)} of all that are here."""
    names = ("ours", "script", "datajuicer", "alike", "cleanvision")
    outs = {name: scratch / f"{folder.name}-{name}" for name in names}
    commands = {"ours": ours(folder, outs["ours"]), "script": script(folder, outs["script"])}
    if peers and (peers / "datajuicer").exists():
        commands["datajuicer"] = datajuicer(folder, outs["datajuicer"], peers)
        commands["alike"] = [*ours(folder, outs["alike"]), "--policy", ALIKE]
    if peers and (peers / "cleanvision").exists():
        commands["cleanvision"] = cleanvision(folder, outs["cleanvision"], peers)
    return {name: (command, outs[name]) for name, command in commands.items()}


def slope(costs: dict[tuple[str, float, int], Cost], name: str, size: float, counts: Sequence[int]) -> float:
    """CPU-seconds of each photograph between the smallest and the largest pool."""
    first, last = min(counts), max(counts)
    return (costs[name, size, last].cpu - costs[name, size, first].cpu) / (last - first)


def main() -> None:
    """Print the table, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[250, 1000, 4000], help="photographs")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.2, 1.0], help="of each photograph")
    parser.add_argument("--peers", type=Path, help="folder with a virtual environment per peer")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="JPEGs to crop, with captions.jsonl")
    a = parser.parse_args()
    photos = sorted(a.photos.glob("*.jpg"))
    if not photos:
        raise SystemExit(f"{a.photos} has no .jpg: give --photos DIR, which also holds captions.jsonl")
    costs: dict[tuple[str, float, int], Cost] = {}
    figures: dict[str, float] = {}
    print(f"{'megapixels':>10} {'pictures':>8} {'command':<12}{'CPU s':>8}{'wall s':>8}{'GiB':>7}{'MB left':>9}")
    scratch = Path(tempfile.mkdtemp(prefix="end-to-end-"))
    try:
        for size in a.megapixels:
            for count in a.counts:
                folder = scratch / f"{size}-{count}"
                photographs(photos, folder, range(count), size)
                for name, (command, out) in contenders(folder, scratch, a.peers).items():
                    costs[name, size, count] = cost = whole(command, out)
                    _print(size, count, name, cost)
                if size == a.megapixels[0] and count == 1000:
                    figures |= _later(photos, folder, scratch / f"{folder.name}-ours", size)
                for path in scratch.glob(f"{folder.name}*"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    finally:
        shutil.rmtree(scratch)
    print(json.dumps(figures | _figures(costs, a.counts, a.megapixels)))


def _later(photos: Sequence[Path], folder: Path, out: Path, size: float) -> dict[str, float]:
    """Ours again: on the unchanged pool, then with twelve more photographs."""
    again = whole(ours(folder, out), out)
    _print(size, 1000, "unchanged", again)
    photographs(photos, folder, range(1000, 1000 + NEW), size)
    new = whole(ours(folder, out), out)
    _print(size, 1000 + NEW, "12 new", new)
    return {"unchanged_cpu_s": round(again.cpu, 1), "few_new_cpu_s": round(new.cpu, 1)}


def _figures(
    costs: dict[tuple[str, float, int], Cost], counts: Sequence[int], sizes: Sequence[float]
) -> dict[str, float]:
    out = {}
    if ("ours", sizes[0], 250) in costs:
        out["cold_250_vs_script"] = costs["ours", sizes[0], 250].cpu / costs["script", sizes[0], 250].cpu
    if len(counts) > 1:
        ratios = [slope(costs, "ours", s, counts) / slope(costs, "script", s, counts) for s in sizes]
        out["slope_vs_script"] = max(ratios)
    if ("datajuicer", sizes[0], 1000) in costs:
        theirs = costs["datajuicer", sizes[0], 1000].cpu
        out["cold_1000_vs_datajuicer"] = theirs / costs["ours", sizes[0], 1000].cpu
        out["alike_1000_vs_datajuicer"] = theirs / costs["alike", sizes[0], 1000].cpu
    if ("cleanvision", sizes[0], 1000) in costs:
        theirs = costs["cleanvision", sizes[0], 1000].cpu
        out["cold_1000_vs_cleanvision"] = theirs / costs["ours", sizes[0], 1000].cpu
    return {name: round(value, 3) for name, value in out.items()}


def _print(size: float, count: int, name: str, cost: Cost) -> None:
    left = cost.written / 1e6
    print(f"{size:>10} {count:>8} {name:<12}{cost.cpu:>8.1f}{cost.wall:>8.1f}{cost.gib:>7.2f}{left:>9.1f}", flush=True)


if __name__ == "__main__":
    main()
