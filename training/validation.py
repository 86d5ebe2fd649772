"""Held-out rows of a model in training: their loss, and pictures drawn from their captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.batch import conditional_loss, rows_at_once
from training.data.loader import Loader
from training.data.plan import trained_size
from training.distributed import World, computing, own_rows
from training.models.autoencoder import Autoencoder
from training.models.condition import ConditionEncoder
from training.models.mmdit import MMDiT, MMDiTConfig
from training.randomness import generator
from training.recipes import Recipe
from training.sampling import Sampler, grid

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


@torch.no_grad()
def validation_loss(
    model: MMDiT, loader: Loader, recipe: Recipe, seed: int, world: World | None = None
) -> float | None:
    """Mean loss of held-out rows at fixed times and noise; None if the data is too small to hold any out."""
    world = world or World()
    total = torch.zeros((), dtype=torch.float64, device=world.device)
    layouts = loader.plan.validation(recipe.validation_rows)
    for layout in layouts:
        for rows, counted in own_rows(layout, world, rows_at_once(loader.plan, layout[0], recipe)):
            micro = loader.gather(rows)
            shape = micro.latents.shape[1:]
            keys = [generator(seed, "validation noise", row.slot) for row in rows]
            noise = torch.stack([torch.from_numpy(rng.standard_normal(shape, dtype="float32")) for rng in keys])
            for time_value in TIMES:
                t = torch.full((len(rows),), time_value)
                with computing(recipe, world.device):
                    losses = conditional_loss(model, micro, micro.states, noise, t, recipe.text_tokens)
                total += losses[:counted].sum()
    count = sum(map(len, layouts)) * len(TIMES)
    return world.sum(total.item()) / count if count else None


def draw_held_out(
    path: Path,
    ema: dict[str, Tensor],
    loader: Loader,
    autoencoder: Autoencoder,
    encoder: ConditionEncoder,
    config: dict[str, Any],
    device: torch.device,
) -> None:
    """Write a grid of pictures drawn on `device` by the EMA weights from captions and references of held-out rows."""
    layouts = sorted(loader.plan.validation(config["recipe"]["validation_rows"]), key=len, reverse=True)
    rows = layouts[0][: config["recipe"]["sample_rows"]] if layouts else []
    if not rows:
        return
    with torch.device("meta"):
        model = MMDiTConfig.from_dict(config["model"]).build()
    model.load_state_dict(ema, assign=True)
    pixels = Loader(
        loader.plan, loader.prepare, resolution=loader.resolution, unit=loader.unit
    )  # references too, even with cached latents
    groups = [pixels.read(row.shard, row.group) for row in rows]
    captions = [group.captions[row.row] for group, row in zip(groups, rows, strict=True)]
    references = [list(g.references[r.row].permute(0, 2, 3, 1).numpy()) for g, r in zip(groups, rows, strict=True)]
    sampler = Sampler.of(model.to(device), autoencoder, encoder, config)
    size = trained_size(loader.plan.shards[rows[0].shard], loader.resolution, loader.unit)
    images = sampler.sample(captions, references, size=size, seed=config["seed"])
    grid(images, captions, path, columns=4, scale=max(1, 128 // images.shape[1]))
