"""Adapters change nothing at first, merge into what they compute, and open in diffusers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flywheel.core.errors import UsageError
from tests.training.tiny_models import randomised
from training.adapter import FILE, adapt, merged, save_adapter
from training.lora import TARGETS, LoRA
from training.models.convert import diffusers_config, to_diffusers
from training.models.mmdit import MMDiT, MMDiTConfig
from training.sequence import sequence_layout
from training.state import put, trained

CONFIG = MMDiTConfig(channels=8, condition_dim=24, depth=2, heads=2, head_dim=16, rope_axes=(4, 6, 6))
LAYOUT = sequence_layout(5, 1, (4, 4), (0,))


def drawn(model: MMDiT) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    latents, text, shown = (torch.randn(2, n, c, generator=rng) for n, c in ((16, 8), (5, 24), (16, 8)))
    with torch.no_grad():
        return model(latents, torch.tensor([0.3, 0.7]), text, LAYOUT, references_BRC=shown)


def moved(lora: LoRA, seed: int = 3) -> MMDiT:
    """A model whose adapters matter."""
    model = randomised(CONFIG.build(), std=0.1)
    adapt(model, lora, seed)
    rng = torch.Generator().manual_seed(7)
    put(trained(model), {n: p + 0.1 * torch.randn(p.shape, generator=rng) for n, p in trained(model).items()})
    return model


@pytest.mark.parametrize("targets", [TARGETS, ("qkv",), ("down", "attention_out")])
def test_an_adapter_starts_as_nothing_and_merges_into_what_it_computes(targets: tuple[str, ...]) -> None:
    lora = LoRA(3, 5.0, targets)
    plain = randomised(CONFIG.build(), std=0.1)
    model = randomised(CONFIG.build(), std=0.1)
    adapt(model, lora, 3)
    assert torch.equal(drawn(model), drawn(plain))
    assert {n.split(".lora_")[0] for n in trained(model)} == {f"blocks.{b}.{t}" for b in (0, 1) for t in targets}
    model = moved(lora)
    weights = merged(model)
    assert weights.keys() == dict(plain.named_parameters()).keys()
    changed = {n for n, p in plain.named_parameters() if not torch.equal(p, weights[n])}
    assert changed == {f"blocks.{b}.{t}.weight" for b in (0, 1) for t in targets}
    before = drawn(plain)
    plain.load_state_dict(weights)
    torch.testing.assert_close(drawn(plain), drawn(model), atol=1e-5, rtol=1e-4)
    assert (drawn(model) - before).abs().max() > 1e-2
    halved = merged(model, {n: p / 2 if "lora_B" in n else p for n, p in trained(model).items()})
    name = f"blocks.0.{targets[0]}.weight"
    base = dict(randomised(CONFIG.build(), std=0.1).named_parameters())[name]
    torch.testing.assert_close(2 * (halved[name] - base), weights[name] - base, atol=1e-5, rtol=1e-4)


def test_adapters_are_a_function_of_the_seed() -> None:
    one, same, other = (trained(moved(LoRA(3, 6.0, TARGETS), seed)) for seed in (3, 3, 4))
    assert all(torch.equal(one[n], same[n]) for n in one) and any(not torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("targets", [TARGETS, ("qkv", "down")])
def test_diffusers_loads_what_is_saved(tmp_path: Path, targets: tuple[str, ...]) -> None:
    from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21Transformer2DModel

    lora = LoRA(3, 5.0, targets)
    model = moved(lora)
    path = save_adapter({n: p.detach() for n, p in trained(model).items()}, lora, CONFIG, tmp_path)
    assert path == tmp_path / FILE
    theirs = QwenImage21Transformer2DModel(**diffusers_config(CONFIG))
    start = randomised(CONFIG.build(), std=0.1)
    theirs.load_state_dict(to_diffusers(dict(start.named_parameters()), CONFIG))
    theirs.load_lora_adapter(load_file(path), prefix="transformer")
    theirs.fuse_lora()
    theirs.unload_lora()
    fused, ours = theirs.state_dict(), to_diffusers(merged(model), CONFIG)
    assert fused.keys() == ours.keys()
    assert max((fused[n] - ours[n]).abs().max() for n in ours) < 1e-6


def test_a_model_that_diffusers_does_not_have_is_refused(tmp_path: Path) -> None:
    config = MMDiTConfig(channels=8, condition_dim=24, depth=1, heads=2, head_dim=16, rope_axes=(4, 6, 6), grid=0.5)
    with pytest.raises(UsageError, match="diffusers cannot open"):
        save_adapter({}, LoRA(3, 5.0, TARGETS), config, tmp_path)
    assert not list(tmp_path.iterdir())
