"""The model that a training phase starts with."""

from __future__ import annotations

import torch

from flywheel.core.errors import UsageError
from training.adapter import adapt
from training.checkpoint import Checkpoint
from training.lora import LoRA
from training.models.condition import ConditionEncoder
from training.models.mmdit import MMDiT, MMDiTConfig, preset
from training.randomness import generator
from training.recipes import Recipe


def build_model(recipe: Recipe, encoder: ConditionEncoder, seed: int) -> MMDiT:
    """A model of the recipe's preset; its random weights are a function of the seed. Errors: `UsageError`."""
    try:
        config: MMDiTConfig = preset(recipe.model, channels=recipe.channels, condition_dim=encoder.dim)
    except ValueError as error:
        raise UsageError(f"recipe {recipe.name}: {error}") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(generator(seed, "weights").integers(2**62)))
        return config.build()


def initial_model(
    recipe: Recipe,
    lora: LoRA | None,
    encoder: ConditionEncoder,
    seed: int,
    last: Checkpoint | None,
    parent: Checkpoint | None,
) -> MMDiT:
    """The parent's EMA weights, or random ones, adapted where the recipe says so.

    For a run that resumes without an adapter only the shape, as its weights are restored later. Errors: `UsageError`,
    also for a parent that reads another condition encoder than the recipe's.
    """
    if parent is not None:
        _require_condition(parent, recipe, encoder)
    if lora:
        if parent is None:
            raise UsageError("lora_rank adapts a checkpoint: give one to start from (--init, or `start` in a preset)")
        model = parent.model("ema")
        adapt(model, lora, seed)
        return model
    if last is not None:
        return MMDiTConfig.from_dict(last.config["model"]).build()
    return build_model(recipe, encoder, seed) if parent is None else parent.model("ema")


def _require_condition(parent: Checkpoint, recipe: Recipe, encoder: ConditionEncoder) -> None:
    condition = parent.config["condition"]
    if condition["fingerprint"] != encoder.fingerprint:
        raise UsageError(
            f"{parent.path} reads the condition encoder {condition['encoder']}, and the recipe's is {recipe.condition}:"
            f" set condition = {condition['encoder']!r} in the recipe, with its text_tokens = {condition['tokens']}"
        )
