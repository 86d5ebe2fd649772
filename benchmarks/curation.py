"""Speed and memory of curation, side by side with its peers, on real photographs.

python -m benchmarks.curation [--only header,pixels,…] [--peers DIR] [--files 2000] [--merge FILE]

CPU-seconds are those of the process tree. A rate is marginal: the difference between a small and a large pass in one
process. The fixed cost (start-up, imports, a warm pass) and the idle cost of daemons per second are printed separately.
Contenders take turns, `--repeats` times each, and the fastest pass of each counts. Photographs are repeated as distinct
files. Compared with peers, ours starts from the files (ingest, score, find duplicates); the other rates are those of
scoring an ingested pool.

--peers DIR contains a virtual environment per peer: DIR/cleanvision, DIR/datajuicer, DIR/daft; a missing one leaves its
column empty. The last line is one JSON object of all figures; --merge FILE adds the figures to those in the file.

header, pixels   header_img_per_cpu_s, pixel_img_per_cpu_s (all scores of the shared decode), beside bare OpenCV
peers, peers4mp  vs_cleanvision, vs_datajuicer, vs_daft, and the same on 4-megapixel enlargements (…_4mp)
rethreshold      rethreshold_1m_s, neardup_10m_s, neardup_10m_gib, … of benchmarks/rethreshold.py
memory           rss_2k_gib, rss_20k_gib: peak of the process tree that ingests and curates this many pictures
engines          ocr_share, clip_share: our rate over the bare engine's on the same pictures
workers          two_workers: throughput of two workers over that of one, wall time
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from benchmarks.measure import PEERS, Passes, marginal, passes, peak_gib, tile

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
WARM = 16  # pictures of the warm pass
# Operators that both have, and the pixel statistics that ours computes for them besides headers, hash and thumbnail.
SAME = {
    "cleanvision": (
        "dark, light, aspect, size, low information, blurry, grayscale, exact and near duplicates",
        ["luma", "entropy", "sharpness", "grayscale"],
    ),
    "datajuicer": ("width, height, aspect, file size, near duplicates by perceptual hash", []),
    "daft": ("width, height, aspect, perceptual hash", []),
}
Figures = dict[str, float]


@dataclass(frozen=True)
class Bench:
    """Input of every part: photographs, options, and a folder for its files."""

    photos: list[Path]
    options: argparse.Namespace
    scratch: Path

    def folders(self, name: str, small: int, large: int, pixels: int | None = None) -> list[Path]:
        """Folders of distinct pictures for a warm, a small and a large pass."""
        return [tile(self.photos, self.scratch / name / str(count), count, pixels) for count in (WARM, small, large)]

    def compare(self, commands: Mapping[str, list[str]], folders: Sequence[Path], small: int, large: int) -> Figures:
        """Pictures per CPU-second of each contender; they take turns. Prints the rates."""
        runs: dict[str, list[Passes]] = {name: [] for name in commands}
        for _ in range(self.options.repeats):
            for name, command in commands.items():
                runs[name].append(passes([*command, *map(str, folders)], self.scratch))
        rates = {}
        for name, repeats in runs.items():
            rates[name], fixed = marginal(repeats, small, large)
            idle = 100 * min(run.idle for run in repeats)
            print(
                f"  {name:<24}{rates[name]:>10.1f} images/CPU-s{fixed:>8.1f} CPU-s fixed{idle:>6.1f} % of a core idle",
                flush=True,
            )
        return rates


def ours(scorers: Mapping[str, object], workers: int = 1) -> list[str]:
    """Command that scores with these scorers."""
    return [sys.executable, str(PEERS / "run_ours.py"), json.dumps(scorers), str(workers)]


def workspaces(folders: Sequence[Path]) -> list[Path]:
    """The folders as ingested workspaces."""
    from curation.sources.ingest import ingest
    from flywheel.core.workspace import Workspace

    out = []
    for folder in folders:
        workspace = Workspace(folder.with_name(f"pool-{folder.name}"))
        ingest(workspace, folder)
        out.append(workspace.root)
    return out


# Parts ---------------------------------------------------------------------------------------------------------------
def header(bench: Bench) -> Figures:
    """Score headers."""
    small, large = bench.options.files // 8, bench.options.files // 8 + bench.options.files
    pools = workspaces(bench.folders("header", small, large))
    return {
        "header_img_per_cpu_s": bench.compare({"ours: header": ours({"header": {}})}, pools, small, large)[
            "ours: header"
        ]
    }


def pixels(bench: Bench) -> Figures:
    """Score pixels, beside bare OpenCV on the same files."""
    small, large = bench.options.files // 8, bench.options.files // 8 + bench.options.files
    folders = bench.folders("pixels", small, large)
    pools = workspaces(folders)
    script = [sys.executable, str(PEERS / "run_opencv.py")]
    bare = bench.compare(
        {"bare OpenCV: decode": [*script, "decode"], "bare OpenCV: nine": [*script, "statistics"]},
        folders,
        small,
        large,
    )
    mine = bench.compare({"ours: pixels": ours({"pixels": {}})}, pools, small, large)
    return {
        "pixel_img_per_cpu_s": mine["ours: pixels"],
        "opencv_decode_img_per_cpu_s": bare["bare OpenCV: decode"],
        "opencv_sketch_img_per_cpu_s": bare["bare OpenCV: nine"],
    }


def peers(bench: Bench) -> Figures:
    """Compare with the peers on the photographs as they are."""
    small = bench.options.peer_files // 5
    return _versus(bench, "peers", small, bench.options.peer_files + small, None, "")


def peers4mp(bench: Bench) -> Figures:
    """Compare with the peers on the photographs enlarged to 4 megapixels."""
    small = bench.options.peer_files_4mp // 4
    return _versus(bench, "peers4mp", small, bench.options.peer_files_4mp + small, 4_000_000, "_4mp")


def _versus(bench: Bench, name: str, small: int, large: int, size: int | None, suffix: str) -> Figures:
    folders = bench.folders(name, small, large, size)
    commands = {}
    for peer, (same, statistics) in SAME.items():
        python = Path(bench.options.peers or "", peer, "bin", "python")
        if bench.options.peers and python.exists():
            commands[peer] = [str(python), str(PEERS / f"run_{peer}.py")]
            mine: dict[str, object] = {"header": {}, "pixels": {"only": statistics}}
            commands |= {f"ours as {peer}": ours(mine)}
            print(f"  {peer}: {same}")
        else:
            print(f"  {peer}: not measured, no {peer}/bin/python in --peers")
    rates = bench.compare(commands, folders, small, large)
    shown = {f"vs_{p}{suffix}": rates[f"ours as {p}"] / rates[p] for p in SAME if p in rates}
    return shown | {f"{p.replace(' ', '_')}{suffix}_img_per_cpu_s": r for p, r in rates.items()}


def rethreshold(bench: Bench) -> Figures:
    """Changed thresholds and near-duplicate search at scale."""
    sizes = ["--rows", str(bench.options.rows), "--hashes", str(bench.options.hashes)]
    command = [sys.executable, "-m", "benchmarks.rethreshold", *sizes]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=PEERS.parents[1]).stdout
    return json.loads(out.splitlines()[-1])


CURATE = """
import sys
from pathlib import Path
from curation.sources.ingest import ingest
from curation.run import curate
from curation.policy.reader import load_policy
from flywheel.core.workspace import Workspace
workspace = Workspace(sys.argv[2])
ingest(workspace, Path(sys.argv[1]))
print(curate(workspace, load_policy("qwen-image-2")))
"""


def memory(bench: Bench) -> Figures:
    """Peak memory of the process tree during ingest and curate, two workers."""
    peaks = {}
    for count in (bench.options.files, 10 * bench.options.files):
        folder = tile(bench.photos, bench.scratch / f"memory-{count}", count)
        workspace = bench.scratch / f"memory-{count}-workspace"
        key = f"rss_{count / 1000:g}k_gib"
        peaks[key] = peak_gib([sys.executable, "-c", CURATE, str(folder), str(workspace)])
        print(f"  {key:<24}{peaks[key]:>10.2f}", flush=True)
    return peaks


def engines(bench: Bench) -> Figures:
    """OCR and CLIP compared with the bare engines. CLIP's weights are random, because only its rate matters.

    OCR runs without `turns`, because the bare engine reads each picture once and does not detect its orientation.
    """
    shares = {}
    for name, options, count in (
        ("ocr", {"turns": False}, bench.options.ocr_files),
        ("clip", _random_clip(bench.scratch / "clip"), bench.options.clip_files),
    ):
        small, large = count // 4, count // 4 + count
        folders = bench.folders(name, small, large)
        bare = [sys.executable, str(PEERS / "run_engine.py"), name, json.dumps(options)]
        rates = bench.compare({f"bare {name}": bare}, folders, small, large)
        rates |= bench.compare({f"ours: {name}": ours({name: options})}, workspaces(folders), small, large)
        shares[f"{name}_share"] = rates[f"ours: {name}"] / rates[f"bare {name}"]
    return shares


def _random_clip(folder: Path) -> dict[str, str]:
    """Scorer options for an untrained CLIP of about 30 million parameters."""
    import torch

    from flywheel.core.torchvision_shim import declare_operators

    declare_operators()
    from open_clip.model import CLIP

    vision = {"image_size": 224, "layers": 6, "width": 384, "patch_size": 32, "head_width": 64}
    text = {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 4}
    config = {"embed_dim": 256, "vision_cfg": vision, "text_cfg": text}
    folder.mkdir()
    mean = {"mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": mean}))
    torch.manual_seed(0)
    torch.save(CLIP(**config).state_dict(), folder / "weights.bin")
    return {"model": f"local-dir:{folder}", "pretrained": str(folder / "weights.bin")}


def workers(bench: Bench) -> Figures:
    """Two workers compared with one: wall seconds of the large pass minus the small one, best of the repeats."""
    small, large = bench.options.files // 8, bench.options.files // 8 + bench.options.files
    pools = workspaces(bench.folders("workers", small, large))
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(bench.options.repeats):
        for count in seconds:
            wall = passes([*ours({"pixels": {}}, count), *map(str, pools)], bench.scratch).wall
            seconds[count].append(wall[3] - wall[2])
            print(f"  {count} workers: {large - small} images in {seconds[count][-1]:.1f} s", flush=True)
    return {"two_workers": min(seconds[1]) / min(seconds[2])}


PARTS: dict[str, Callable[[Bench], Figures]] = {
    f.__name__: f for f in (header, pixels, peers, peers4mp, rethreshold, memory, engines, workers)
}


def main() -> None:
    """Print each part's table, then all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, of {', '.join(PARTS)}")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of JPEG photographs")
    parser.add_argument("--peers", type=Path, help="folder with a virtual environment per peer")
    parser.add_argument(
        "--files", type=int, default=2000, help="pictures of the large pass and of the smaller memory run"
    )
    parser.add_argument("--peer-files", type=int, default=400)
    parser.add_argument("--peer-files-4mp", type=int, default=48)
    parser.add_argument("--ocr-files", type=int, default=16)
    parser.add_argument("--clip-files", type=int, default=256)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--hashes", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--merge", type=Path, help="JSON file to which figures are added")
    options = parser.parse_args()
    if unknown := set(options.only.split(",")) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    photos = sorted(options.photos.glob("*.jpg"))
    if not photos:
        print(f"skipped: no .jpg in {options.photos}", file=sys.stderr)
        print(json.dumps({}))
        return
    kept = options.merge and options.merge.exists()
    figures: Figures = json.loads(options.merge.read_text()) if kept else {}
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            print(name, flush=True)
            measured = PARTS[name](Bench(photos, options, Path(scratch)))
        figures |= {key: round(value, 3) for key, value in measured.items()}
        for key, value in measured.items():
            print(f"  {key:<32}{value:>10.3f}", flush=True)
        if options.merge:
            options.merge.write_text(json.dumps(figures))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
