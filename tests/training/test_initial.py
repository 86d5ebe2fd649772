"""The model that a phase starts with: a function of its seed, or what it is adapted from."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from flywheel.core.errors import UsageError
from tests.training.dmd.tiny import TINY as DMD
from tests.training.rl.tiny import TINY as RL
from tests.training.rl_parts import Redness, prompts
from tests.training.tiny_runs import TINY, run
from training import saving
from training.dmd.trainer import train as distil
from training.initial import build_model, initial_model
from training.lora import LoRA
from training.models.encoders import load_condition_encoder
from training.rl.trainer import train as reinforce


def test_random_weights_are_a_function_of_the_seed():
    encoder = load_condition_encoder(TINY.condition)
    one, same, other = (dict(build_model(TINY, encoder, seed).named_parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(UsageError, match="recipe .*no-such-model"):
        build_model(TINY.change(model="no-such-model"), encoder, 1)


def test_an_adapter_needs_a_checkpoint():
    encoder = load_condition_encoder(TINY.condition)
    with pytest.raises(UsageError, match="lora_rank adapts a checkpoint: give one to start from"):
        initial_model(TINY, LoRA.of(TINY.change(lora_rank=2)), encoder, 1, None, None)


def test_a_parent_that_reads_another_encoder_is_one_sentence(trained):
    recipe = TINY.change(condition="qwen3-vl:tiny", text_tokens=0)
    with pytest.raises(UsageError, match="set condition = 'minilm' in the recipe, with its text_tokens = 16"):
        initial_model(recipe, None, load_condition_encoder("qwen3-vl:tiny"), 1, None, trained)


def test_a_start_whose_weights_are_no_numbers_is_named_before_anything_is_trained(tmp_path, start, snapshot):
    weights = start.tensors("ema")
    next(iter(weights.values())).view(-1)[0] = math.inf
    broken = saving.write(tmp_path / "broken", {"model": weights, "ema": weights}, start.autoencoder(), start.config)
    cards = prompts(tmp_path, 4)
    for once in (
        lambda: run(tmp_path / "a", snapshot, init=broken.path),
        lambda: run(tmp_path / "b", snapshot, recipe=TINY.change(lora_rank=2), init=broken.path),
        lambda: reinforce(tmp_path / "c", cards, [], RL, Redness(), init=broken.path),
        lambda: distil(tmp_path / "d", cards, DMD, init=broken.path),
        lambda: distil(tmp_path / "e", cards, replace(DMD, teachers=(str(broken.path),)), init=start.path),
    ):
        with pytest.raises(UsageError, match="broken: the weight .* is not finite .*; give an earlier or another one"):
            once()
