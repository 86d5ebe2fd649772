"""The model that a phase starts with: a function of its seed, or what it is adapted from."""

from __future__ import annotations

import pytest
import torch

from flywheel.core.errors import UsageError
from tests.training.tiny_runs import TINY
from training.initial import build_model, initial_model
from training.lora import LoRA
from training.models.encoders import load_condition_encoder


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
