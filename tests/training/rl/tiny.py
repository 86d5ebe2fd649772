"""A tiny recipe, roll-outs and logged lines for the tests of RL."""

from __future__ import annotations

import torch

from training.checkpoint import Checkpoint, read_metrics
from training.lora import LoRA
from training.prompts import ConditionReader
from training.rl.policy import Policy
from training.rl.recipe import RLRecipe
from training.rl.rollout import roll_out
from training.sampling import Sampler

TINY = RLRecipe(
    name="test", steps=3, weights={"*": {"red": 1.0, "dark": 0.5}, "editing": {"red": 1.0}}, side=32, prompts=3,
    group=4, learning_rate=1e-3, clip=(1e-3, 1e-3), sampling_steps=4, window=(0, 2), lora_rank=4, check_every=2,
    held_out=3, checkpoint_every=1, min_range=0.0, final_learning_rate=0.5,
    proxies={"red": "dark", "dark": "red"},
)  # fmt: skip


def without_clock(checkpoint: Checkpoint) -> list[dict]:
    lines = read_metrics(checkpoint.path.parent / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k != "cpu_seconds"} for line in lines]


def rolled(start, cards, recipe: RLRecipe, number: int = 0):
    """A policy and one prompt's group."""
    sampler = Sampler(start)
    policy = Policy(sampler.model, lora=LoRA.of(recipe))
    reader = ConditionReader(sampler.encoder, sampler.autoencoder, sampler.text_tokens, recipe.side)
    noise = torch.stack(
        [torch.stack([reader.noise("n", k, i) for i in range(recipe.group)]) for k in range(recipe.window[1] + 1)]
    )
    times = torch.from_numpy(sampler.times(recipe.sampling_steps, 16)).float()
    prompt = cards[0][number]
    return policy, roll_out(policy.model, prompt, reader.read([prompt])[0], noise[0], noise[1:], times, recipe)
