"""Everything of the loop that computes on a GPU, in at most six minutes on one H100 or H200.

python benchmarks/gpu.py [--tiny] [--only train ...]

train: forward and backward pass of one eighth of the 2.1 model's depth, bfloat16, 1024 px, nothing recomputed: tokens
a second, the share of the matrix-product peak measured in the same run, and against diffusers' model of the same
weights, eager and compiled. score: CLIP (an architecture with random weights: how fast, not what) and NSFW pictures a
second. vae: pictures of 1024 px a second through the encoder of the report's size. sample: seconds a picture at 1024
px, 40 steps with guidance, with the condition read once and read in every step. rl, dmd: seconds of a step.

--tiny runs every line at small size on a CPU, traced but not compiled, so that the script itself is known to work. A
line that fails is named, the others go on, and the exit status is 1. The last line is one JSON object. Goals:
gpu_train_of_peak ≥ 0.5, gpu_train_vs_diffusers_compiled ≥ 1.2.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from benchmarks.training import as_diffusers, cuda_seconds, in_turns, inputs, pair, products, training_step
from flywheel.core.scorer import Item
from flywheel.signals.suite import Prompt
from training import saving
from training.checkpoint import Checkpoint
from training.distributed import compile_blocks
from training.models.autoencoder import PatchAutoencoder
from training.models.encoders import load_condition_encoder
from training.models.mmdit import MMDiTConfig, preset
from training.models.positions import Layout
from training.rewards import Request, Scores
from training.vae.training import VAE_RECIPES

Figures = dict[str, float]


@dataclass(frozen=True)
class Size:
    """One run's device and sizes. side: pixels; grid: latent tokens of a side; steps: of sampling."""

    device: str
    dtype: torch.dtype
    peak: int
    model: MMDiTConfig
    batch: int
    text: int
    grid: int
    side: int
    steps: int
    repeats: int
    clip: str
    pictures: int
    vae: str
    loop: str
    loop_side: int
    group: int
    compiler: dict[str, Any]

    @property
    def layout(self) -> Layout:
        """A text and a square picture."""
        return (self.text, (self.grid, self.grid))


def full() -> Size:
    """On a GPU."""
    return Size(
        device="cuda",
        dtype=torch.bfloat16,
        peak=8192,
        model=preset("qwen-image-2.1", depth=4),
        batch=2,
        text=300,
        grid=64,
        side=1024,
        steps=40,
        repeats=10,
        clip="ViT-L-14",
        pictures=256,
        vae="qwen-image-2",
        loop="small",
        loop_side=512,
        group=8,
        compiler={},
    )


def tiny() -> Size:
    """On a CPU, in seconds."""
    return Size(
        device="cpu",
        dtype=torch.float32,
        peak=128,
        model=preset("tiny-2.1", depth=2),
        batch=2,
        text=5,
        grid=2,
        side=64,
        steps=2,
        repeats=1,
        clip="",
        pictures=2,
        vae="tiny",
        loop="tiny-2.1",
        loop_side=32,
        group=2,
        compiler={"backend": "eager"},
    )


def wall_seconds(run: Callable[[], Any]) -> float:
    """Seconds of one call."""
    clock = time.perf_counter()
    run()
    return time.perf_counter() - clock


def seconds(size: Size, *runs: Callable[[], Any], warm: int = 2) -> list[float]:
    """Median seconds of each run, in turns."""
    clock = cuda_seconds if size.device == "cuda" else wall_seconds
    return [statistics.median(column) for column in in_turns(runs, size.repeats, clock, warm=warm)]


# The lines ----------------------------------------------------------------------------------------------------------
def train(size: Size) -> Figures:
    """Forward and backward pass, ours and diffusers', eager and compiled."""
    a, b = (torch.randn(size.peak, size.peak, device=size.device, dtype=size.dtype) for _ in range(2))
    peak = 2 * size.peak**3 / seconds(size, lambda: a @ b, warm=5)[0]
    ours, theirs = pair(size.model, size.device, size.dtype)
    kwargs = inputs(size.model, size.layout, size.batch, size.device, size.dtype)
    translated, target = as_diffusers(kwargs), size.grid**2
    first = training_step(lambda: ours(**kwargs), ours)
    second = training_step(lambda: theirs(**translated).sample[:, -target:], theirs)
    expected = float(second())
    if abs(float(first()) - expected) > 0.05 * abs(expected):
        raise RuntimeError(f"the two models disagree: {float(first())} and {expected}")
    eager = seconds(size, first, second)
    compile_blocks(ours, **size.compiler)
    theirs.compile(**size.compiler)
    compiled = seconds(size, first, second, warm=3)
    if abs(float(first()) - expected) > 0.05 * abs(expected):
        raise RuntimeError(f"compiled, the model computes something else: {float(first())} and {expected}")
    best, tokens = min(eager[0], compiled[0]), size.batch * (size.text + target)
    _, flop = products(size.model, size.layout, size.batch, "meta", size.dtype)
    return {
        "peak_tflops": peak / 1e12,
        "train_tokens_per_s": tokens / best,
        "train_of_peak": flop / best / peak,
        "train_compiled_vs_eager": eager[0] / compiled[0],
        "train_vs_diffusers_eager": eager[1] / best,
        "train_vs_diffusers_compiled": compiled[1] / best,
    }


def score(size: Size, folder: Path) -> Figures:
    """CLIP with random weights and NSFW, pictures a second, from encoded pictures to columns."""
    from curation.scorers import load

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, size.side, size.side, 3), dtype=np.uint8)
    items = [Item(_encoded(pixels[n % 4]), f"picture {n}") for n in range(size.pictures)]
    model, weights = random_clip(size.clip, folder)
    figures = {}
    for name, scorer in {"clip": load("clip", model=model, pretrained=weights), "nsfw": load("nsfw")}.items():
        scorer.score(items[:2])  # loads it
        figures[f"{name}_pictures_per_s"] = size.pictures / wall_seconds(lambda s=scorer: s.score(items))
    return figures


def random_clip(name: str, folder: Path) -> tuple[str, str]:
    """(architecture, checkpoint) of a CLIP with random weights; without a name, of a small one."""
    from flywheel.core.torchvision_shim import declare_operators

    declare_operators()
    import open_clip

    if not name:
        config = {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
            "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
        }
        described = {"model_cfg": config, "preprocess_cfg": {}}
        (folder / "open_clip_config.json").write_text(json.dumps(described))
        name = f"local-dir:{folder}"
    torch.save(open_clip.create_model(name, load_weights=False).state_dict(), folder / "clip.bin")
    return name, str(folder / "clip.bin")


@torch.no_grad()
def vae(size: Size) -> Figures:
    """Encoding, pictures a second."""
    recipe = VAE_RECIPES[size.vae]
    with torch.device(size.device):
        model = recipe.build().to(size.dtype).eval()
    pictures = torch.rand(2, 3 + recipe.alpha, 1, size.side, size.side, device=size.device, dtype=size.dtype)
    [spent] = seconds(size, lambda: model.encode(pictures).latent_dist.mode())
    return {"vae_encode_pictures_per_s": 2 / spent}


@torch.no_grad()
def sample(size: Size) -> Figures:
    """A guided picture's seconds, with the condition read once and in every step."""
    model, _ = pair(size.model, size.device, size.dtype)
    kwargs = inputs(size.model, size.layout, 1, size.device, size.dtype)
    condition = (kwargs["text_BLK"], kwargs["layout"])
    times = torch.linspace(1, 0, size.steps + 1, device=size.device).to(size.dtype)

    def run(once: bool) -> Tensor:
        x, prefix = kwargs["latents_BNC"], model.prefill(*condition) if once else None
        for t, following in zip(times[:-1], times[1:], strict=True):
            velocities = [model.decode(x, t.view(1), prefix or model.prefill(*condition)) for _ in range(2)]
            x = x + (following - t) * (velocities[1] + 3.0 * (velocities[0] - velocities[1]))
        return x

    cached, without = seconds(size, lambda: run(True), lambda: run(False), warm=1)
    return {"sample_s": cached, "sample_without_cache_s": without}


def rl(size: Size, folder: Path) -> Figures:
    """A step of GRPO: roll-outs, rewards, update."""
    from training.rl.recipe import rl_recipe
    from training.rl.trainer import train as reinforce

    recipe = rl_recipe(
        "rl-tiny", steps=3, side=size.loop_side, prompts=2, group=size.group, weights={"*": {"bright": 1.0}},
        held_out=0, sampling_steps=10 if size.device == "cuda" else 3, window=(0, 2), min_range=0.0,
        checkpoint_every=0,
    )  # fmt: skip
    clock = _Clock()
    reinforce(folder / "rl", _prompts(4), [], recipe, Brightness(), init=start(size, folder), progress=clock)
    return {"rl_step_s": clock.shortest, "rl_pictures_per_s": 2 * size.group / clock.shortest}


def dmd(size: Size, folder: Path) -> Figures:
    """A step of distillation: one update of the fake score, one of the student."""
    from training.dmd.recipe import dmd_recipe
    from training.dmd.trainer import train as distil

    recipe = dmd_recipe("dmd-tiny", steps=3, side=size.loop_side, batch=size.group, fake_updates=1, checkpoint_every=0)
    clock = _Clock()
    distil(folder / "dmd", _prompts(4), recipe, init=start(size, folder), progress=clock)
    return {"dmd_step_s": clock.shortest}


# What they need -----------------------------------------------------------------------------------------------------
class _Clock:
    """A loop's progress: the shortest time between two steps."""

    def __init__(self) -> None:
        self.shortest, self._last = float("inf"), 0.0

    def __call__(self, done: int, steps: int, line: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._last:
            self.shortest = min(self.shortest, now - self._last)
        self._last = now


class Brightness:
    """A reward that costs next to nothing."""

    names, workers = ("bright",), 1

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Mean of the pixels."""
        return [{"bright": float(np.asarray(Image.open(io.BytesIO(r.item.image))).mean() / 255)} for r in requests]


def start(size: Size, folder: Path) -> Path:
    """A checkpoint of random weights, written once."""
    path, encoder = folder / "start", load_condition_encoder("minilm")
    if path.exists():
        return path
    config = preset(size.loop, channels=64, condition_dim=encoder.dim)
    torch.manual_seed(0)
    weights = {k: 0.05 * torch.randn_like(v) + ("norm" in k) for k, v in config.build().state_dict().items()}
    basis = torch.linalg.qr(torch.randn(3 * 16 * 16, 64))[0].contiguous()
    autoencoder = PatchAutoencoder(torch.zeros(len(basis)), basis, torch.ones(64))
    described = {
        "step": 0,
        "run": "benchmark",
        "recipe": {"name": "benchmark", "resolution": {}},
        "model": config.to_dict(),
        "condition": {"encoder": "minilm", "fingerprint": encoder.fingerprint, "tokens": 24},
    }
    written: Checkpoint = saving.write(path, {"ema": weights}, autoencoder, described)
    return written.path


def _prompts(count: int) -> list[Prompt]:
    return [Prompt(f"p{n}", f"a red circle number {n}", "t2i", (), ()) for n in range(count)]


def _encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def measure(size: Size, only: Sequence[str] = ()) -> tuple[Figures, list[str]]:
    """(figures by name, lines that failed), each line printed as it is measured."""
    figures: Figures = {}
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lines: dict[str, Callable[[], Figures]] = {
            "train": lambda: train(size),
            "score": lambda: score(size, folder),
            "vae": lambda: vae(size),
            "sample": lambda: sample(size),
            "rl": lambda: rl(size, folder),
            "dmd": lambda: dmd(size, folder),
        }
        for name, line in lines.items():
            if only and name not in only:
                continue
            began = time.perf_counter()
            try:
                found = line()
            except Exception:  # noqa: BLE001 - a machine is lent for minutes: the other lines are measured
                traceback.print_exc()
                failed.append(name)
                continue
            figures |= {f"gpu_{key}": value for key, value in found.items()}
            shown = ", ".join(f"{key} {value:.3g}" for key, value in found.items())
            print(f"{name} ({time.perf_counter() - began:.0f} s): {shown}", flush=True)
    return figures, failed


def main() -> None:
    """Print a line for each part, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small sizes on a CPU: to try the script")
    parser.add_argument("--only", nargs="+", default=(), metavar="LINE", help="train, score, vae, sample, rl, dmd")
    arguments = parser.parse_args()
    if not arguments.tiny and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device: run it on one that has, or with --tiny")
    if arguments.tiny:
        torch.set_num_threads(1)
    figures, failed = measure(tiny() if arguments.tiny else full(), arguments.only)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
