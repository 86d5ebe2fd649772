"""Trains a small VAE like the report's: f16, residual with parameter-free shortcuts, without a GAN.

The architecture is the published VAE's (`AutoencoderKLQwenImage21`) with fewer and narrower layers; its first level
works on 2×2 pixel blocks, which saves most of the time on a CPU. The result opens like the published one.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from flywheel.core.config import read_toml
from flywheel.core.errors import UsageError
from flywheel.core.files import digest, rename_folder, write_bytes
from flywheel.core.torchvision_shim import declare_operators
from training import checkpoint as checkpoints
from training.checkpoint import Metrics
from training.data.row_group import to_unit
from training.distributed import choose_device
from training.losses.vae import alignment_loss, alignment_weight, kl_loss, perceptual_loss, reconstruction_loss
from training.models.features import Features
from training.models.vae import VAE
from training.randomness import generator
from training.recipe_file import named
from training.run import Progress, cpu_seconds, due, last_checkpoint, require_finite, require_finite_tensors, step_name
from training.state import build_optimizer, copies, move_ema, set_rate, training_state

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage21 import AutoencoderKLQwenImage21

FACTOR = 16
STATISTICS_BATCHES = 8  # of 32 crops each, to measure the latents' mean and deviation


@dataclass(frozen=True, kw_only=True)
class VAERecipe:
    """Shape, losses and optimiser. The kinds of losses are the report's, the numbers are ours.

    channels: of a latent. base, decoder_base: width of the first level; `widths` multiply it level by level.
    side: pixels of a training crop; load: pixels of the pictures that crops are cut from.
    perceptual, kl: loss weights, relative to reconstruction's 1. alignment: its loss weight at first, and its relaxed
        weight, reached after the share `relax_until` of the run.
    """

    channels: int = 64
    base: int = 24
    decoder_base: int = 32
    widths: tuple[int, ...] = (1, 2, 4, 4)
    residual_blocks: int = 1
    side: int = 64
    load: int = 256
    steps: int = 2000
    batch: int = 8
    learning_rate: float = 2e-3
    warmup: int = 50
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.001
    clip: float = 1.0
    ema: float = 0.995
    perceptual: float = 0.1
    alignment: tuple[float, float] = (0.5, 0.05)
    relax_until: float = 0.5
    kl: float = 1e-6
    checkpoint_every: int = 200

    def change(self, **changes: Any) -> VAERecipe:
        """The recipe with changed values."""
        return replace(self, **changes)

    def build(self) -> AutoencoderKLQwenImage21:
        """A model with random weights."""
        declare_operators()
        from diffusers.models.autoencoders.autoencoder_kl_qwenimage21 import AutoencoderKLQwenImage21

        return AutoencoderKLQwenImage21(
            base_dim=self.base,
            decoder_base_dim=self.decoder_base,
            z_dim=self.channels,
            dim_mult=list(self.widths),
            num_res_blocks=self.residual_blocks,
            temperal_downsample=[False] * (len(self.widths) - 1),
            in_channels=12,
            out_channels=12,
            patch_size=2,
            latents_mean=[0.0] * self.channels,
            latents_std=[1.0] * self.channels,
        )


VAE_RECIPES = {"tiny": VAERecipe()}


def load_vae_recipe(name: str) -> VAERecipe:
    """A named recipe, or changes to `tiny` from a .toml file. Errors: `UsageError`."""
    if not name.endswith(".toml"):
        if name not in VAE_RECIPES:
            raise UsageError(f"unknown VAE preset {name!r}: use one of {', '.join(VAE_RECIPES)}, or give a .toml file")
        return VAE_RECIPES[name]
    return named(VAE_RECIPES, "tiny", read_toml(Path(name)))


class ProjectedVAE(nn.Module):
    """The VAE and, for the alignment only, a projection of its latents to a frozen network's features."""

    def __init__(self, vae: AutoencoderKLQwenImage21, channels: int, features: int) -> None:
        super().__init__()
        self.vae, self.projection = vae, nn.Conv2d(channels, features, 1)

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images [B, 3, H, W] → decoded images, the posterior's mean and log-variance, and the mean's projection."""
        posterior = self.vae.encode(images[:, :, None]).latent_dist
        mean, deviation = posterior.mean[:, :, 0], posterior.std[:, :, 0]
        decoded = self.vae.decode((mean + deviation * noise)[:, :, None]).sample[:, :, 0]
        return decoded, mean, posterior.logvar[:, :, 0], self.projection(mean)


def train_vae(
    out_dir: Path,
    pictures: Sequence[Tensor] | Tensor,
    recipe: VAERecipe,
    *,
    seed: int = 0,
    steps: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train on random crops of `pictures` (uint8 [N, 3, H, W] each); returns the folder that diffusers opens.

    On a CPU, an interrupted run resumes to the same bits; a finished run returns at once. Errors: `UsageError` for
    pictures smaller than a crop, if `out_dir` holds another run, and for a loss or update that is not finite.
    """
    out_dir, steps = Path(out_dir), steps or recipe.steps
    pictures = [pictures] if isinstance(pictures, Tensor) else list(pictures)
    _require_crops(pictures, recipe.side)
    run = digest(asdict(recipe.change(checkpoint_every=0)), steps, seed, [_content(part) for part in pictures])
    final, marker = out_dir / "final", out_dir / "run.txt"
    if marker.exists() and marker.read_text() != run:
        raise UsageError(f"{out_dir} holds another VAE (pictures, recipe, steps or seed differ): give a new folder")
    if final.exists():
        return final

    checkpoints.sweep(out_dir)
    write_bytes(marker, run.encode())
    device = choose_device()
    model, features = _initial_model(recipe, seed).to(device), Features().to(device)
    ema = copies(dict(model.named_parameters()))
    optimizer = build_optimizer(model, betas=recipe.betas, weight_decay=recipe.weight_decay)
    state = training_state(model, ema, optimizer)
    last = last_checkpoint(out_dir, run)
    if last is not None:
        last.restore(state)
    start = last.step if last else 0
    metrics = Metrics(out_dir, resume_step=start)
    for step in range(start, steps):
        clock = time.process_time()
        images = crops(pictures, recipe.side, recipe.batch, (seed, "VAE", step)).to(device)
        losses = vae_losses(model, features, images, recipe, step / steps, (seed, "VAE noise", step))
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip).item()
        require_finite(step + 1, losses["loss"].item(), norm)
        set_rate(optimizer, recipe.learning_rate * min(1, (step + 1) / recipe.warmup) * _cosine(step / steps))
        optimizer.step()
        move_ema(ema, dict(model.named_parameters()), min(recipe.ema, (step + 1) / (step + 10)))
        done = step + 1
        line = {"step": done, **{k: v.item() for k, v in losses.items()}, "grad_norm": norm}
        metrics.append({**line, "cpu_seconds": cpu_seconds(clock)})
        if progress is not None:
            progress(done, steps, line)
        if due(recipe.checkpoint_every, done) and done < steps:
            require_finite_tensors(done, "weights", state["model"])
            checkpoints.write(out_dir / step_name(done), state, None, {"step": done, "run": run})
            checkpoints.prune(out_dir, keep=2)
    metrics.close()
    for part in ("model", "ema"):
        require_finite_tensors(steps, "weights", state[part])
    return _finish(out_dir, pictures, recipe, ema, seed)


def _require_crops(pictures: Sequence[Tensor], side: int) -> None:
    if any(min(part.shape[-2:]) < side for part in pictures) or side % FACTOR:
        raise UsageError(f"crops of {side} pixels: use a multiple of {FACTOR}, at most the pictures' shorter side")


def _initial_model(recipe: VAERecipe, seed: int) -> ProjectedVAE:
    """A fresh model; its weights are a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "VAE weights").integers(2**62)))
        return ProjectedVAE(recipe.build(), recipe.channels, Features.channels)


def vae_losses(
    model: ProjectedVAE, features: Features, images: Tensor, recipe: VAERecipe, progress: float, key: tuple[Any, ...]
) -> dict[str, Tensor]:
    """Every loss of a batch of images in [-1, 1], and their weighted sum as `loss`; `progress` in [0, 1)."""
    shape = (len(images), recipe.channels, images.shape[-2] // FACTOR, images.shape[-1] // FACTOR)
    noise = torch.from_numpy(generator(*key).standard_normal(shape, dtype="float32")).to(images)
    decoded, mean, log_variance, projected = model(images, noise)
    with torch.no_grad():
        wanted = features(images)
    losses = {
        "reconstruction": reconstruction_loss(images, decoded),
        "perceptual": perceptual_loss(wanted, features(decoded)),
        "alignment": alignment_loss(projected, wanted[-1]),
        "kl": kl_loss(mean, log_variance),
    }
    weights = {
        "reconstruction": 1.0,
        "perceptual": recipe.perceptual,
        "alignment": alignment_weight(*recipe.alignment, progress, recipe.relax_until),
        "kl": recipe.kl,
    }
    return {**losses, "loss": reduce(add, (weights[name] * loss for name, loss in losses.items()))}


def crops(pictures: Sequence[Tensor], side: int, count: int, key: tuple[Any, ...]) -> Tensor:
    """`count` random squares of random pictures, half of them mirrored, in [-1, 1]: a function of `key` alone."""
    rng, out = generator(*key), []
    ends = torch.tensor([len(part) for part in pictures]).cumsum(0)
    for _ in range(count):
        number = int(rng.integers(int(ends[-1])))
        part = int(torch.searchsorted(ends, number, right=True))
        picture = pictures[part][number - int(ends[part])]
        top, left = (int(rng.integers(size - side + 1)) for size in picture.shape[-2:])
        cut = picture[:, top : top + side, left : left + side]
        out.append(cut.flip(-1) if rng.random() < 0.5 else cut)
    return to_unit(torch.stack(out))


@torch.no_grad()
def _finish(out_dir: Path, pictures: Sequence[Tensor], recipe: VAERecipe, ema: dict[str, Tensor], seed: int) -> Path:
    """Write the averaged VAE with its latents' mean and deviation, measured on crops of the pictures."""
    vae = recipe.build()
    vae.load_state_dict({k.removeprefix("vae."): v.cpu() for k, v in ema.items() if k.startswith("vae.")})
    plain = VAE(vae)
    latents = [
        plain.encode(crops(pictures, recipe.side, 32, (seed, "VAE statistics", i))) for i in range(STATISTICS_BATCHES)
    ]
    values = torch.cat(latents).movedim(1, 0).flatten(1)
    vae.register_to_config(latents_mean=values.mean(1).tolist(), latents_std=values.std(1).clamp(min=1e-4).tolist())
    temporary = out_dir / ".final.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    vae.save_pretrained(temporary)
    rename_folder(temporary, out_dir / "final")
    return out_dir / "final"


def _content(pictures: Tensor) -> str:
    return digest(list(pictures.shape), int(pictures.long().sum()), pictures[0, :, 0].tolist())


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))
