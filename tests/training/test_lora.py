"""Settings of an adapter in every kind of recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flywheel.core.errors import UsageError
from training.dmd.recipe import dmd_recipe
from training.lora import DEFAULTS, TARGETS, LoRA, identified
from training.recipes import from_dict, recipe
from training.rl.recipe import rl_recipe

RECIPES = {"phase": recipe("tiny"), "rl": rl_recipe("rl-tiny"), "dmd": dmd_recipe("dmd-tiny")}


@pytest.mark.parametrize("kind", RECIPES)
def test_rank_alpha_and_targets_are_settings(kind: str) -> None:
    chosen = replace(RECIPES[kind], lora_rank=8)
    assert LoRA.of(chosen) == LoRA(8, 16.0, TARGETS)
    assert LoRA.of(replace(chosen, lora_alpha=4, lora_targets=("qkv",))) == LoRA(8, 4, ("qkv",))
    assert LoRA.of(replace(chosen, lora_rank=0)) is None


@pytest.mark.parametrize("kind", RECIPES)
def test_what_is_wrong_is_said(kind: str) -> None:
    for wrong, sentence in (
        ({"lora_rank": -1}, "lora_rank is -1: give a whole number of 0 or more"),
        ({"lora_rank": 4, "lora_alpha": -1.0}, "give a number of 0 or more"),
        ({"lora_rank": 4, "lora_targets": ("to_q",)}, "unknown layer 'to_q': use qkv, attention_out, gate_up, down"),
        ({"lora_rank": 4, "lora_targets": ()}, "name layers to adapt"),
    ):
        with pytest.raises(UsageError, match=sentence):
            replace(RECIPES[kind], **wrong)


def test_a_run_of_before_there_were_adapters_keeps_its_name() -> None:
    before = {k: v for k, v in RECIPES["phase"].to_dict().items() if not k.startswith("lora_")}
    assert identified(RECIPES["phase"].to_dict(), *DEFAULTS) == before
    assert not [k for k in RECIPES["phase"].method() if k.startswith("lora_")]
    adapted = recipe("tiny", lora_rank=4, lora_targets=["qkv"])
    assert adapted.method()["lora_rank"] == 4 and "lora_alpha" not in adapted.method()
    assert from_dict({**adapted.to_dict(), "lora_targets": ["qkv"]}).lora_targets == ("qkv",)
