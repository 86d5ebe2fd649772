"""The estimate against counts on the meta device: weights, moments, and what a forward pass saves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.testing._internal.distributed.fake_pg import FakeStore

from flywheel.core.errors import UsageError
from training.adapter import adapt
from training.distributed import World, computing, parallelise, reduce_gradients
from training.lora import TARGETS, LoRA
from training.memory_plan import (
    FLOAT,
    GB,
    PARTS,
    adapter_parameters,
    parameters,
    plan,
    plans,
    saved_values,
)  # fmt: skip
from training.models import attention
from training.models.mmdit import PRESETS, MMDiT, MMDiTConfig
from training.recipes import Recipe, recipe
from training.sequence import sequence_layout
from training.state import build_optimizer, copies, trained, training_state

RANK = 16
SMALL = replace(PRESETS["small"], depth=4)


def on_meta(config: MMDiTConfig, rank: int = 0, *, recompute: bool = False) -> MMDiT:
    with torch.device("meta"):
        model = config.build()
        if rank:
            adapt(model, LoRA(rank, 2.0 * rank, TARGETS), 0)
    meta = World(device=torch.device("meta"))
    return parallelise(model, recipe("tiny", activation_checkpointing=recompute), meta)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("modulation", ["shared", "per_block"])
def test_weights_and_adapters_are_counted_exactly(name: str, modulation: str) -> None:
    config = replace(PRESETS[name], modulation=modulation)
    assert parameters(config) == sum(p.numel() for p in on_meta(config).parameters())
    adapted = on_meta(config, RANK)
    assert adapter_parameters(config, RANK) == sum(p.numel() for p in trained(adapted).values())
    assert parameters(config) + adapter_parameters(config, RANK) == sum(p.numel() for p in adapted.parameters())


def test_the_open_model_has_its_published_size() -> None:
    assert 6.5e9 < parameters(PRESETS["qwen-image-2.1"]) < 7.5e9


@pytest.mark.parametrize("rank", [0, RANK])
def test_moments_gradients_and_moving_average_are_counted_exactly(rank: int) -> None:
    model = on_meta(SMALL, rank)
    optimizer = build_optimizer(model, betas=(0.9, 0.95), weight_decay=0.0)
    moments = sum(v.nbytes for state in optimizer.state.values() for k, v in state.items() if k != "step")
    own = sum(p.nbytes for p in trained(model).values())
    alone = plan("small", SMALL, gpus=1, rank=rank, tokens=1, recompute=True)
    assert (alone.optimizer, alone.gradients, alone.ema) == (moments, own, own)
    assert alone.weights == sum(p.nbytes for p in model.parameters()) == 2 * alone.half
    copied = training_state(model, copies(trained(model)), optimizer)
    assert alone.host == sum(t.nbytes for part in copied.values() for t in part.values() if t.ndim)  # but step numbers
    eight = plan("small", SMALL, gpus=8, rank=rank, tokens=1, recompute=True)
    for part in ("weights", "ema", "gradients", "optimizer", "host"):
        assert 0 <= 8 * getattr(eight, part) - getattr(alone, part) < 8
    assert eight.half == alone.half  # of all of them, on each GPU


@pytest.mark.parametrize("rank", [0, RANK])
def test_gradients_of_several_passes_are_counted_exactly(rank: int) -> None:
    """What FSDP2 holds on one of eight processes, of which the others are feigned, after two passes of a step."""
    recipe_ = recipe("tiny", precision="bf16")
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    try:
        model = SMALL.build()
        if rank:
            adapt(model, LoRA(rank, 2.0 * rank, TARGETS), 0)
        model = parallelise(model, recipe_, World(0, 8))
        reduce_gradients(model, False)
        held = [one_pass(model, recipe_) for _ in range(2)]
    finally:
        torch.distributed.destroy_process_group()
    said = plan("small", SMALL, gpus=8, rank=rank, tokens=1, recompute=True)
    assert held == [said.accumulated] * 2 and said.accumulated == FLOAT * said.trained
    once = plan("small", SMALL, gpus=8, rank=rank, tokens=1, recompute=True, accumulate=False)
    assert said.total - once.total == said.accumulated and once.accumulated == 0
    assert plan("small", SMALL, gpus=1, rank=rank, tokens=1, recompute=True).accumulated == 0  # `gradients` are whole


def one_pass(model: MMDiT, settings: Recipe) -> int:
    """Bytes of gradients that are not yet reduced, after one more forward and backward pass."""
    with computing(settings, torch.device("cpu")):
        latents, states = torch.randn(1, 16, SMALL.channels), torch.randn(1, 8, SMALL.condition_dim)
        out = model(latents, torch.rand(1), states, sequence_layout(8, 0, (4, 4), ()))
    out.float().square().sum().backward()
    groups = [m._get_fsdp_state()._fsdp_param_group for m in model.modules() if isinstance(m, FSDPModule)]
    held = [p.unsharded_accumulated_grad for group in groups if group is not None for p in group.fsdp_params]
    return sum(grad.nbytes for grad in held if grad is not None)


class _Flash(torch.autograd.Function):
    """What an attention kernel keeps: its inputs and its output, no table of all pairs."""

    @staticmethod
    def forward(ctx: object, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, ...]:
        return ctx.saved_tensors[:3]


@contextmanager
def saving() -> Iterator[dict[int, tuple[int, Tensor]]]:
    """Storages that are saved for the backward pass: {address: (values, a tensor that keeps it alive)}."""
    kept: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = (storage.nbytes() // FLOAT, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def saved(config: MMDiTConfig, rank: int, *, recompute: bool, tokens: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Values that a forward pass over one picture and its caption saves, parameters not counted."""
    monkeypatch.setattr(attention, "attention", lambda q, k, v, mask=None, *, causal=False: _Flash.apply(q, k, v))
    model = on_meta(config, rank, recompute=recompute)
    side = 16
    text = tokens - side**2
    with saving() as kept, torch.device("meta"):
        latents, states = torch.empty(1, side**2, config.channels), torch.empty(1, text, config.condition_dim)
        out = model(latents, torch.empty(1), states, sequence_layout(text, 0, (side, side), ()))
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    assert out.requires_grad
    return sum(count for storage, (count, _) in kept.items() if storage not in weights)


@pytest.mark.parametrize("rank", [0, RANK])
@pytest.mark.parametrize("recompute", [False, True])
def test_what_a_block_saves_is_what_the_estimate_says(rank: int, recompute: bool, monkeypatch: pytest.MonkeyPatch):
    """The difference of two depths: what lies outside of the blocks does not count."""
    tokens = 384
    shallow, deep = (
        saved(replace(SMALL, depth=depth), rank, recompute=recompute, tokens=tokens, monkeypatch=monkeypatch)
        for depth in (3, 5)
    )
    said = saved_values(replace(SMALL, depth=5), rank, recompute=recompute) - saved_values(
        replace(SMALL, depth=3), rank, recompute=recompute
    )
    assert (deep - shallow) / tokens == pytest.approx(said, rel=0.03)


def test_the_table_says_what_fits() -> None:
    found = {(p.model, p.way, p.recompute): p for p in plans(gpus=8, lora_rank=64, side=1024, rows=1, text_tokens=256)}
    assert len(found) == 4 * len(PRESETS)
    large = "qwen-image-2.1"
    full, small = found[large, "full", True], found[large, "lora", True]
    assert full.total < found[large, "full", False].total and small.total < full.total
    assert full.row(80)["fits"] and not full.row(20)["fits"]
    alone = next(plans(gpus=1, lora_rank=64, side=1024, rows=1, text_tokens=256, names=[large]))
    assert not alone.row(80)["fits"] and alone.total > 4 * FLOAT * alone.parameters  # nobody trains it on one GPU
    row = small.row(80)
    assert row["total"] == pytest.approx(sum(row[p] for p in PARTS) + 2, abs=0.05)
    assert row["trained"] == adapter_parameters(PRESETS[large], 64) and row["total"] == round(small.total / GB, 2)
    assert row["host"] == round(small.host / GB, 2) and small.host < full.host < full.total
    with pytest.raises(UsageError, match="unknown model 'x': use tiny"):
        list(plans(gpus=1, lora_rank=1, side=64, rows=1, text_tokens=8, names=["x"]))
