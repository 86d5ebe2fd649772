"""Trains a VAE like the report's: f16, residual with parameter-free shortcuts, without a GAN.

The architecture is the published VAE's (`AutoencoderKLQwenImage21`). The recipe `tiny` has fewer and narrower layers,
and its first level works on 2×2 pixel blocks, which saves most of the time on a CPU. The result opens like the
published one. Several processes (torchrun) train what one trains, each on its part of every batch.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from flywheel.core.config import read_toml
from flywheel.core.errors import UsageError
from flywheel.core.files import digest, rename_folder, write_bytes
from flywheel.core.ranges import Above, Amount, Count, Positive, Share, Span, require_ranges
from flywheel.core.torchvision_shim import declare_operators
from training import checkpoint as checkpoints
from training.data.row_group import to_unit
from training.distributed import World, choose_device
from training.losses.vae import alignment_loss, alignment_weight, kl_loss, perceptual_loss, reconstruction_loss
from training.models.features import Dinov2, Features
from training.models.vae import VAE
from training.randomness import generator
from training.recipe_file import named
from training.run import Progress, last_checkpoint, require_finite, require_finite_tensors, take_steps
from training.saving import copied, taken_by_first, write
from training.state import build_optimizer, copies, move_ema, set_rate, training_state

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage21 import AutoencoderKLQwenImage21

FACTOR = 16
STATISTICS_BATCHES = 8  # of 32 crops each, to measure the latents' mean and deviation


@dataclass(frozen=True, kw_only=True)
class VAERecipe:
    """Shape, losses and optimiser. The kinds of losses are the report's, the numbers are ours.

    channels: of a latent. width, decoder_width: of the first level; `widths` multiply it level by level.
    block: side of the pixel blocks that the first level works on. alpha: pictures have a fourth channel, as the
        published VAE's; it is opaque in training.
    teacher: folder or hub tag of the DINOv2 whose features latents are aligned with; "": EfficientNet-Lite0's.
    side: pixels of a training crop; load: pixels of the pictures that crops are cut from.
    perceptual, kl: loss weights, relative to reconstruction's 1. alignment: its loss weight at first, and its relaxed
        weight, reached after the share `relax_until` of the run.
    """

    channels: Positive = 64
    width: Positive = 24
    decoder_width: Positive = 32
    widths: Annotated[tuple[int, ...], Span(1)] = (1, 2, 4, 4)
    residual_blocks: Positive = 1
    block: Positive = 2
    alpha: bool = False
    teacher: str = ""
    side: Positive = 64
    load: Positive = 256
    steps: Count = 2000
    batch: Positive = 8
    learning_rate: Amount = 2e-3
    warmup: Count = 50
    betas: Annotated[tuple[float, float], Span(0, 1, below=True)] = (0.9, 0.95)
    weight_decay: Amount = 0.001
    clip: Above = 1.0
    ema: Share = 0.995
    perceptual: Amount = 0.1
    alignment: Annotated[tuple[float, float], Span(0)] = (0.5, 0.05)
    relax_until: Share = 0.5
    kl: Amount = 1e-6
    checkpoint_every: Count = 200

    def __post_init__(self) -> None:
        require_ranges(self)

    def change(self, **changes: Any) -> VAERecipe:
        """The recipe with changed values."""
        return replace(self, **changes)

    def build(self) -> AutoencoderKLQwenImage21:
        """A model with random weights."""
        declare_operators()
        from diffusers.models.autoencoders.autoencoder_kl_qwenimage21 import AutoencoderKLQwenImage21

        return AutoencoderKLQwenImage21(
            base_dim=self.width,
            decoder_base_dim=self.decoder_width,
            z_dim=self.channels,
            dim_mult=list(self.widths),
            num_res_blocks=self.residual_blocks,
            temperal_downsample=[False, *[self.block == 1] * (len(self.widths) - 2)],  # the published one's, else none
            in_channels=(3 + self.alpha) * self.block**2,
            out_channels=(3 + self.alpha) * self.block**2,
            patch_size=self.block if self.block > 1 else None,
            latents_mean=[0.0] * self.channels,
            latents_std=[1.0] * self.channels,
        )


# The report's sizes: an encoder of 79 M and a decoder of 259 M parameters; it publishes no numbers of the training.
VAE_RECIPES = {
    "tiny": VAERecipe(alpha=True),
    "qwen-image-2": VAERecipe(
        width=96,
        decoder_width=144,
        widths=(1, 2, 4, 8, 8),
        residual_blocks=2,
        block=1,
        alpha=True,
        teacher="facebook/dinov2-large",
        side=256,
        load=1024,
        steps=500_000,
        batch=256,
        learning_rate=1e-4,
        warmup=5000,
        ema=0.9999,
        perceptual=1.0,
        checkpoint_every=5000,
    ),
}


def load_vae_recipe(name: str) -> VAERecipe:
    """A named recipe, or changes to its `base` (tiny, unless it says so) from a .toml file. Errors: `UsageError`."""
    if not name.endswith(".toml"):
        if name not in VAE_RECIPES:
            raise UsageError(f"unknown VAE preset {name!r}: use one of {', '.join(VAE_RECIPES)}, or give a .toml file")
        return VAE_RECIPES[name]
    changes = dict(read_toml(Path(name)))
    return named(VAE_RECIPES, str(changes.pop("base", "tiny")), changes)


class ProjectedVAE(nn.Module):
    """The VAE and, for the alignment only, a projection of its latents to a frozen network's features."""

    def __init__(self, vae: AutoencoderKLQwenImage21, recipe: VAERecipe, features: int) -> None:
        super().__init__()
        self.vae, self.projection = vae, nn.Conv2d(recipe.channels, features, 1)

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images [B, 3 or 4, H, W] → decoded ones, the posterior's mean and log-variance, and the mean's projection."""
        posterior = self.vae.encode(images[:, :, None]).latent_dist
        mean, deviation = posterior.mean[:, :, 0], posterior.std[:, :, 0]
        decoded = self.vae.decode((mean + deviation * noise)[:, :, None]).sample[:, :, 0]
        return decoded, mean, posterior.logvar[:, :, 0], self.projection(mean)


class Teachers(NamedTuple):
    """Frozen networks: of the perceptual loss, and of the alignment where that is another one."""

    perceptual: Features
    aligned: Dinov2 | None

    @classmethod
    def of(cls, recipe: VAERecipe, device: torch.device) -> Teachers:
        """Those of a recipe. Errors: `UsageError` if its teacher cannot be opened."""
        return cls(Features().to(device), Dinov2(recipe.teacher).to(device) if recipe.teacher else None)

    @property
    def channels(self) -> int:
        """Of the features that latents are aligned with."""
        return self.aligned.channels if self.aligned else self.perceptual.channels


def train_vae(
    out_dir: Path,
    pictures: Sequence[Tensor] | Tensor,
    recipe: VAERecipe,
    *,
    seed: int = 0,
    steps: int | None = None,
    world: World | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train on random crops of `pictures` (uint8 [N, 3, H, W] each); returns the folder that diffusers opens.

    On a CPU, an interrupted run of one process resumes to the same bits; a finished run returns at once. Errors:
    `UsageError` for pictures smaller than a crop, a batch that the processes cannot share evenly, an `out_dir` that
    holds another run, and a loss or update that is not finite.
    """
    out_dir, steps, world = Path(out_dir), steps or recipe.steps, world or World(device=choose_device())
    pictures = [pictures] if isinstance(pictures, Tensor) else list(pictures)
    _require_crops(pictures, recipe, world)
    settings = asdict(recipe) | {"checkpoint_every": 0}  # which changes nothing of what is made
    run = digest(settings, steps, seed, [_content(part) for part in pictures])
    final = out_dir / "final"
    _claim(out_dir, run, world)
    if final.exists():
        return final

    world.wait()
    teachers = Teachers.of(recipe, world.device)
    model = _initial_model(recipe, teachers.channels, seed).to(world.device)
    ema = copies(dict(model.named_parameters()))
    optimizer = build_optimizer(model, betas=recipe.betas, weight_decay=recipe.weight_decay)
    state = training_state(model, ema, optimizer)
    last = last_checkpoint(out_dir, run)
    if last is not None:
        last.restore(state)
    trainer = _Trainer(model, teachers, optimizer, ema, pictures, recipe, steps, seed, world, last.step if last else 0)

    def take(name: str) -> Callable[[], object]:
        require_finite_tensors(trainer.done, "weights", state["model"])
        kept, config = copied(state), {"step": trainer.done, "run": run}
        return lambda: write(out_dir / name, kept, None, config)

    def save(name: str) -> Callable[[], object]:
        return taken_by_first(world, partial(take, name))

    every = recipe.checkpoint_every
    take_steps(trainer, out_dir, steps, save, checkpoint_every=every, progress=progress, world=world)
    for part in ("model", "ema"):
        require_finite_tensors(steps, "weights", state[part])
    world.by_first(lambda: _finish(out_dir, pictures, recipe, ema, seed))
    return final


@dataclass
class _Trainer:
    """A VAE in training: `done` changes, and the weights, their moving average and the optimiser."""

    model: ProjectedVAE
    teachers: Teachers
    optimizer: torch.optim.Optimizer
    ema: dict[str, Tensor]
    pictures: Sequence[Tensor]
    recipe: VAERecipe
    steps: int
    seed: int
    world: World
    done: int

    def one_step(self) -> dict[str, Any]:
        """Take one step and return its metrics: the losses of the whole batch."""
        losses = _update(self)
        self.done += 1
        named = dict(self.model.named_parameters())
        move_ema(self.ema, named, min(self.recipe.ema, self.done / (self.done + 9)))
        return {"step": self.done, **losses}


def _update(trainer: _Trainer) -> dict[str, float]:
    """One step of the optimiser on this process's part of the batch; the losses of the whole batch."""
    model, optimizer, recipe, world = trainer.model, trainer.optimizer, trainer.recipe, trainer.world
    step, seed, progress = trainer.done, trainer.seed, trainer.done / trainer.steps
    part = slice(*(recipe.batch // world.size * n for n in (world.rank, world.rank + 1)))
    images = crops(trainer.pictures, recipe.side, recipe.batch, (seed, "VAE", step))[part].to(world.device)
    shape = (recipe.batch, recipe.channels, recipe.side // FACTOR, recipe.side // FACTOR)
    noise = torch.from_numpy(generator(seed, "VAE noise", step).standard_normal(shape, dtype="float32"))[part]
    losses = vae_losses(model, trainer.teachers, images, noise.to(images), recipe, progress)
    optimizer.zero_grad(set_to_none=True)
    (losses["loss"] / world.size).backward()
    world.add_gradients(model.parameters())
    line = {name: world.sum(loss.item()) / world.size for name, loss in losses.items()}
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip).item()
    require_finite(step + 1, line["loss"], norm)
    set_rate(optimizer, recipe.learning_rate * min(1, (step + 1) / recipe.warmup) * _cosine(progress))
    optimizer.step()
    return line | {"grad_norm": norm}


def _require_crops(pictures: Sequence[Tensor], recipe: VAERecipe, world: World) -> None:
    side = recipe.side
    if any(min(part.shape[-2:]) < side for part in pictures) or side % FACTOR:
        raise UsageError(f"crops of {side} pixels: use a multiple of {FACTOR}, at most the pictures' shorter side")
    if recipe.batch % world.size:
        raise UsageError(f"{world.size} processes cannot share a batch of {recipe.batch}: use a divisor of it")


def _claim(out_dir: Path, run: str, world: World) -> None:
    """Make the folder this run's. Errors: `UsageError` if it is another's."""
    marker = out_dir / "run.txt"
    if marker.exists() and marker.read_text() != run:
        raise UsageError(f"{out_dir} holds another VAE (pictures, recipe, steps or seed differ): give a new folder")
    if world.first and not (out_dir / "final").exists():
        checkpoints.sweep(out_dir)
        write_bytes(marker, run.encode())


def _initial_model(recipe: VAERecipe, features: int, seed: int) -> ProjectedVAE:
    """A fresh model; its weights are a function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "VAE weights").integers(2**62)))
        return ProjectedVAE(recipe.build(), recipe, features)


def vae_losses(
    model: ProjectedVAE, teachers: Teachers, images: Tensor, noise: Tensor, recipe: VAERecipe, progress: float
) -> dict[str, Tensor]:
    """Every loss of a batch of images in [-1, 1], and their weighted sum as `loss`; `progress` in [0, 1)."""
    shown = torch.cat([images, torch.ones_like(images[:, :1])], 1) if recipe.alpha else images
    decoded, mean, log_variance, projected = model(shown, noise)
    with torch.no_grad():
        wanted = teachers.perceptual(images)
        aligned = wanted[-1] if teachers.aligned is None else teachers.aligned(images)
    losses = {
        "reconstruction": reconstruction_loss(shown, decoded),
        "perceptual": perceptual_loss(wanted, teachers.perceptual(decoded[:, :3])),
        "alignment": alignment_loss(projected, aligned),
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
