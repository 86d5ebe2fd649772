"""A global batch: its parts on this process, sized for one forward pass, and its flow-matching loss."""

from __future__ import annotations

import torch
from torch import Tensor

from training.data.loader import MicroBatch
from training.data.plan import DataPlan, Row, trained_size
from training.distributed import World, moved, own_rows
from training.losses.flow_matching import flow_matching_loss, logit_normal
from training.models.condition import pad, padded_length
from training.models.mmdit import MMDiT
from training.randomness import generator
from training.recipes import Recipe
from training.sequence import as_tokens, sequence_layout

Part = tuple[list[Row], int]
"""Rows of one layout for one forward pass, and how many of them count."""


def own_batch(plan: DataPlan, step: int, recipe: Recipe, world: World) -> tuple[int, list[Part]]:
    """Number of rows of the global batch, and this process's parts of it."""
    layouts = plan.batch(step)
    parts = [p for rows in layouts for p in own_rows(rows, world, rows_at_once(plan, rows[0], recipe))]
    return sum(map(len, layouts)), parts


def rows_at_once(plan: DataPlan, row: Row, recipe: Recipe) -> int:
    """How many rows of this layout fit the recipe's `micro_tokens` in one forward pass; 0: no limit."""
    if not recipe.micro_tokens:
        return 0
    shard = plan.shards[row.shard]
    height, width = trained_size(shard, recipe.resolution, recipe.factor)
    images = 1 + shard.shape[2]
    return max(1, recipe.micro_tokens * recipe.factor**2 // (height * width * images))


def batch_loss(model: MMDiT, micro: MicroBatch, null: Tensor, recipe: Recipe, seed: int, stage: str = "") -> Tensor:
    """Flow-matching loss per row [B]. Noise, t and text dropout depend only on (seed, stage, bucket, slot)."""
    noise, normal, states = torch.empty_like(micro.latents), torch.empty(len(micro.rows)), list(micro.states)
    for i, row in enumerate(micro.rows):
        rng = generator(seed, "step", stage, row.bucket, row.slot)
        if rng.random() < recipe.dropout:
            states[i] = micro.nulls[i] if micro.nulls else null
        normal[i] = rng.standard_normal()
        noise[i] = torch.from_numpy(rng.standard_normal(noise.shape[1:], dtype="float32"))
    t = logit_normal(normal, recipe.time_mean, recipe.time_std)
    return conditional_loss(model, micro, states, noise, t, recipe.text_tokens)


def conditional_loss(
    model: MMDiT, micro: MicroBatch, states: list[Tensor], noise: Tensor, t: Tensor, text_tokens: int
) -> Tensor:
    """Flow-matching loss per row [B] on the model's device, given noise, times and text states."""
    device = model.image_in.weight.device
    lengths = [padded_length(len(state), text_tokens) for state in states]
    text, valid = pad(states, max(lengths))
    text, valid = moved(text, device), None if valid is None else moved(valid, device)
    references = moved(micro.references, device)
    height, width = micro.latents.shape[-2:]
    layout = sequence_layout(text.shape[1], references.shape[1], (height, width), micro.lead)
    tokens = as_tokens(references.transpose(1, 2).flatten(3)) if references.shape[1] else None

    def velocity(x_t: Tensor, time: Tensor) -> Tensor:
        out = model(
            as_tokens(x_t), time, text, layout, references_BRC=tokens, text_valid_BL=valid, text_lengths=lengths
        )
        return out.transpose(1, 2).unflatten(2, x_t.shape[-2:])

    return flow_matching_loss(velocity, moved(micro.latents, device), moved(noise, device), moved(t, device))
