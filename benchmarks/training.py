"""MMDiT against diffusers' model of the same weights: training steps, and sampling with and without the prefix cache.

python benchmarks/training.py [--repeats 5] [--device cpu|cuda]

cpu: 16.9 M parameters, float32, one thread; forward and backward on the same inputs, in turns, CPU-seconds.
`limit` is how much faster than diffusers a model could be that spends no time outside matrix products and attention:
diffusers' time over the time of our own products and attention calls, made alone. kv_cache_speedup: one image of 16×16
latents from a 300-token prompt and one reference, 8 Euler steps, prefix read once against read in every step.
cuda: `small`, and one eighth of the 2.1 model's depth, bfloat16, 1024 px, 300 text tokens, nothing recomputed;
seconds by CUDA events, and the share of the matrix-product peak measured in the same run. The last line is one JSON
object; on a machine without CUDA the cuda figures are absent.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this folder holds files named like packages

from flywheel.core.torchvision_shim import declare_operators
from training.models.convert import diffusers_config, to_diffusers
from training.models.fused import linear
from training.models.mmdit import MMDiT, MMDiTConfig, preset
from training.models.positions import Layout, segment_bounds, tokens

CPU = MMDiTConfig(channels=64, condition_dim=1024, depth=8, heads=6, head_dim=64, rope_axes=(8, 28, 28))
IMAGE = (16, 16)
LAYOUTS: dict[str, tuple[Layout, int]] = {  # layout, batch
    "t2i": ((64, IMAGE), 4),
    "ti2i3": ((IMAGE, IMAGE, IMAGE, 64, IMAGE), 2),
}
Step = Callable[[], Tensor]
Clock = Callable[[Callable[[], Any]], float]


def pair(config: MMDiTConfig, device: str, dtype: torch.dtype) -> tuple[MMDiT, torch.nn.Module]:
    """Our model and diffusers', with equal random weights of std 0.05."""
    declare_operators()
    from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21Transformer2DModel

    with torch.device(device):
        ours, theirs = config.build(), QwenImage21Transformer2DModel(**diffusers_config(config))
    torch.manual_seed(0)
    for name, weight in ours.named_parameters():
        torch.nn.init.normal_(weight, mean=float(name.endswith(("query_norm", "key_norm"))), std=0.05)
    theirs.load_state_dict(to_diffusers(ours.state_dict(), config))
    return ours.to(dtype), theirs.to(dtype)


def inputs(config: MMDiTConfig, layout: Layout, batch: int, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Keyword arguments of our model."""
    text = sum(s for s in layout if isinstance(s, int))
    references = sum(tokens(s) for s in layout[:-1] if not isinstance(s, int))
    draw = lambda n, c: torch.randn(batch, n, c, device=device, dtype=dtype)  # noqa: E731
    return {
        "latents_BNC": draw(tokens(layout[-1]), config.channels),
        "t_B": torch.linspace(0.2, 0.9, batch, device=device),
        "text_BLK": draw(text, config.condition_dim),
        "layout": layout,
        "references_BRC": draw(references, config.channels) if references else None,
    }


def as_diffusers(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The same inputs in diffusers' terms: an image slot stands for 2×2 latent tokens."""
    layout, text = kwargs["layout"], kwargs["text_BLK"]
    runs = iter(text.split([s for s in layout if isinstance(s, int)], dim=1))
    states = [
        next(runs) if isinstance(s, int) else text.new_zeros(len(text), tokens(s) // 4, text.shape[2])
        for s in layout[:-1]
    ]
    slots = [not isinstance(s, int) for s in layout for _ in range(s if isinstance(s, int) else tokens(s) // 4)]
    images = [x for x in (kwargs["references_BRC"], kwargs["latents_BNC"]) if x is not None]
    return {
        "hidden_states": torch.cat(images, dim=1),
        "encoder_hidden_states": torch.cat(states, dim=1),
        "timestep": kwargs["t_B"].to(text.dtype),
        "img_shapes": [[(1, *s) for s in layout if not isinstance(s, int)]] * len(text),
        "img_mask": torch.tensor([slots] * len(text), device=text.device),
    }


def both(config: MMDiTConfig, layout: Layout, batch: int, device: str, dtype: torch.dtype) -> tuple[Step, Step]:
    """A training step of our model and of diffusers', each returning its loss; checked to agree."""
    ours, theirs = pair(config, device, dtype)
    kwargs = inputs(config, layout, batch, device, dtype)
    translated, target = as_diffusers(kwargs), tokens(layout[-1])
    first = lambda: ours(**kwargs)  # noqa: E731
    second = lambda: theirs(**translated).sample[:, -target:]  # noqa: E731
    with torch.no_grad():
        gap, size = (first() - second()).abs().max().item(), second().std().item()
    if gap > (1e-4 if dtype == torch.float32 else 0.1) * size:
        raise RuntimeError(f"the two models disagree by {gap:g} at outputs of {size:g}")

    return training_step(first, ours), training_step(second, theirs)


def training_step(forward: Step, model: torch.nn.Module) -> Step:
    """Forward and backward pass of a model, to gradients of its own."""

    def run() -> Tensor:
        model.zero_grad(set_to_none=True)
        loss = forward().float().square().mean()
        loss.backward()
        return loss.detach()

    return run


def products(config: MMDiTConfig, layout: Layout, batch: int, device: str, dtype: torch.dtype) -> tuple[Step, float]:
    """Only the blocks' matrix products and attention of a training step, as few as the work needs; and their FLOP.

    After the last block's keys and values nobody needs the condition.
    """
    width, hidden, bounds = config.width, config.mlp_ratio * config.width, segment_bounds(layout)
    total, target = bounds[-1][1], tokens(layout[-1])
    draw = lambda *shape: torch.randn(shape, device=device, dtype=dtype, requires_grad=True)  # noqa: E731
    weights = [draw(*s) for s in ((3 * width, width), (width, width), (2 * hidden, width), (width, hidden))]
    full, tail = ([draw(batch * n, w.shape[1]) for w in weights] for n in (total, target))
    tail = full[:1] + tail[1:]
    q, k, v = (draw(batch, config.heads, total, config.head_dim) for _ in range(3))

    def block(rows: Sequence[Tensor], segments: Sequence[tuple[int, int]]) -> None:
        for x, weight in zip(rows, weights, strict=True):
            y = linear(x, weight)
            torch.autograd.grad(y, (x, weight), y.detach())
        for start, end in segments:
            part, keys, values = (
                x.detach().requires_grad_() for x in (q[:, :, start:end], k[:, :, :end], v[:, :, :end])
            )
            y = F.scaled_dot_product_attention(part, keys, values)
            torch.autograd.grad(y, (part, keys, values), y.detach())

    def run() -> Tensor:
        for number in range(config.depth):
            last = number + 1 == config.depth
            block(tail if last else full, bounds[-1:] if last else bounds)
        return q

    product = lambda rows: sum(6 * len(x) * w.numel() for x, w in zip(rows, weights, strict=True))  # noqa: E731
    attention = lambda parts: sum(12 * batch * width * (e - s) * e for s, e in parts)  # noqa: E731
    flop = (config.depth - 1) * (product(full) + attention(bounds)) + product(tail) + attention(bounds[-1:])
    return run, float(flop)


def cpu_seconds(run: Callable[[], Any]) -> float:
    """CPU time of this process."""
    clock = time.process_time()
    run()
    return time.process_time() - clock


def cuda_seconds(run: Callable[[], Any]) -> float:
    """Device time of one call."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def in_turns(runs: Sequence[Callable[[], Any]], repeats: int, clock: Clock, warm: int = 1) -> list[list[float]]:
    """Seconds of each run, `repeats` times in turns, after `warm` rounds that are not counted."""
    rounds = [[clock(run) for run in runs] for _ in range(repeats + warm)][warm:]
    return [list(column) for column in zip(*rounds, strict=True)]


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the ratios of neighbouring runs: what slows down one repeat slows down both."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def cache_speedup(repeats: int) -> float:
    """Time of sampling with the condition computed in every step, over computing it once."""
    ours, _ = pair(CPU, "cpu", torch.float32)
    kwargs = inputs(CPU, (IMAGE, 300, IMAGE), 1, "cpu", torch.float32)
    condition = (kwargs["text_BLK"], kwargs["layout"], kwargs["references_BRC"])
    times = torch.linspace(1, 0, 9)

    @torch.no_grad()
    def run(once: bool) -> Tensor:
        x, prefix = kwargs["latents_BNC"], ours.prefill(*condition) if once else None
        for t, following in zip(times[:-1], times[1:], strict=True):
            velocity = ours.decode(x, t.view(1), prefix or ours.prefill(*condition))
            x = x + (following - t) * velocity
        return x

    if not torch.equal(run(True), run(False)):
        raise RuntimeError("the cache changes the image")
    without, cached = in_turns([lambda: run(False), lambda: run(True)], repeats, cpu_seconds, warm=0)
    return ratio(without, cached)


def on_cpu(repeats: int) -> dict[str, Any]:
    """The CPU figures, with their table."""
    torch.set_num_threads(1)
    count = sum(p.numel() for p in CPU.build().parameters()) / 1e6
    print(f"{count:.1f} M parameters, float32, one thread; forward and backward, CPU-seconds")
    print(f"{'':<8}{'ours':>8}{'diffusers':>11}{'products':>10}{'ours is':>9}{'limit':>8}")
    figures: dict[str, Any] = {"mmdit_parameters_m": round(count, 1)}
    for name, (layout, batch) in LAYOUTS.items():
        steps = both(CPU, layout, batch, "cpu", torch.float32)
        bound, _ = products(CPU, layout, batch, "cpu", torch.float32)
        ours, theirs, least = in_turns([*steps, bound], repeats, cpu_seconds)
        won, limit = ratio(theirs, ours), ratio(theirs, least)
        middle = [statistics.median(x) for x in (ours, theirs, least)]
        print(f"{name:<8}{middle[0]:>8.2f}{middle[1]:>11.2f}{middle[2]:>10.2f}{won:>8.2f}×{limit:>7.2f}×", flush=True)
        figures |= {f"mmdit_vs_diffusers_{name}": round(won, 3), f"mmdit_limit_{name}": round(limit, 3)}
    figures["kv_cache_speedup"] = round(cache_speedup(repeats), 2)
    print(f"sampling with the prefix cache: {figures['kv_cache_speedup']:.2f}×")
    return figures


def on_cuda(repeats: int) -> dict[str, Any]:
    """The CUDA figures, with their table."""
    print(f"{torch.cuda.get_device_name()}, bfloat16, 1024 px; forward and backward, seconds")
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    [spent] = in_turns([lambda: a @ b], max(20, repeats), cuda_seconds, warm=5)
    peak = 2 * 8192**3 / statistics.median(spent)
    print(f"matrix-product peak measured: {peak / 1e12:.0f} TFLOP/s")
    print(f"{'':<16}{'ours':>8}{'diffusers':>11}{'of peak':>9}{'ours is':>9}")
    figures: dict[str, Any] = {"cuda_peak_tflops": round(peak / 1e12)}
    configs = {"small": (preset("small"), 8), "eighth": (preset("qwen-image-2.1", depth=4), 2)}
    for name, (config, batch) in configs.items():
        layout = (300, (64, 64))
        steps = both(config, layout, batch, "cuda", torch.bfloat16)
        _, flop = products(config, layout, batch, "cuda", torch.bfloat16)
        ours, theirs = in_turns(steps, repeats, cuda_seconds, warm=3)
        share, won = flop / statistics.median(ours) / peak, ratio(theirs, ours)
        print(f"{name:<16}{statistics.median(ours):>8.3f}{statistics.median(theirs):>11.3f}{share:>9.0%}{won:>8.2f}×")
        figures |= {f"cuda_{name}_of_peak": round(share, 3), f"cuda_{name}_vs_diffusers": round(won, 3)}
    return figures


def main() -> None:
    """Print the tables, then the figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device: run it on one that has")
    figures = on_cuda(arguments.repeats) if arguments.device == "cuda" else on_cpu(arguments.repeats)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
