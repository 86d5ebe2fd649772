"""Our MMDiT against diffusers' `QwenImage21Transformer2DModel`, and its cache against no cache."""

from __future__ import annotations

import pytest
import torch

from flywheel.core.torchvision_shim import declare_operators
from training.models.convert import diffusers_config, to_diffusers
from training.models.mmdit import MMDiTConfig, preset
from training.models.positions import grid_features, tokens

CONFIG = MMDiTConfig(channels=16, condition_dim=64, depth=4, heads=4, head_dim=32, rope_axes=(8, 12, 12))

T2I = (7, (6, 4))

TI2I = (5, (4, 4), (2, 6), 9, (6, 4))  # two references side by side, then the instruction

TOLERANCE = 1e-6


def strong(model: torch.nn.Module, std: float = 0.05) -> torch.nn.Module:
    """Weights of a size at which the text matters: a parity test on default weights is nearly blind."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator) * std
            weight.copy_(noise + 1 if "norm" in name and "text_in" not in name else noise)
    return model


@pytest.fixture(scope="module")
def pair():
    declare_operators()
    from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21Transformer2DModel

    ours = strong(CONFIG.build())
    theirs = QwenImage21Transformer2DModel(**diffusers_config(CONFIG))
    theirs.load_state_dict(to_diffusers(ours.state_dict(), CONFIG), strict=True)
    return ours, theirs


def inputs(layout, batch=2, padded=()):
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    text_length = sum(s for s in layout if isinstance(s, int))
    reference_tokens = sum(tokens(s) for s in layout[:-1] if not isinstance(s, int))
    valid = torch.ones(batch, text_length, dtype=torch.bool)
    for row, count in padded:
        valid[row, text_length - count :] = False
    return {
        "latents_BNC": draw(batch, tokens(layout[-1]), CONFIG.channels),
        "t_B": torch.linspace(0.2, 0.9, batch),
        "text_BLK": draw(batch, text_length, CONFIG.condition_dim),
        "layout": layout,
        "references_BRC": draw(batch, reference_tokens, CONFIG.channels) if reference_tokens else None,
        "text_valid_BL": valid if padded else None,
    }


def diffusers_forward(model, arguments):
    """The same inputs in diffusers' terms: an image slot stands for 2×2 latent tokens in text and masks."""
    layout, text = arguments["layout"], arguments["text_BLK"]
    batch = len(text)
    states, slots, valid, used = [], [], [], 0
    text_valid = (
        arguments["text_valid_BL"] if arguments["text_valid_BL"] is not None else text.new_ones(text.shape[:2]).bool()
    )
    for segment in layout:
        if isinstance(segment, int):
            states.append(text[:, used : used + segment])
            valid.append(text_valid[:, used : used + segment])
            slots += [False] * segment
            used += segment
        else:
            count = tokens(segment) // 4
            states.append(text.new_zeros(batch, count, text.shape[2]))
            valid.append(torch.ones(batch, count, dtype=torch.bool))
            slots += [True] * count
    count = tokens(layout[-1]) // 4
    images = [x for x in (arguments["references_BRC"], arguments["latents_BNC"]) if x is not None]
    out = model(
        hidden_states=torch.cat(images, dim=1),
        encoder_hidden_states=torch.cat(states[:-1], dim=1),
        timestep=arguments["t_B"],
        img_shapes=[[(1, *s) for s in layout if not isinstance(s, int)]] * batch,
        img_mask=torch.tensor([slots] * batch),
        encoder_hidden_states_mask=torch.cat(valid[:-1], dim=1) if arguments["text_valid_BL"] is not None else None,
    ).sample
    return out[:, -tokens(layout[-1]) :]


@pytest.mark.parametrize(
    ("layout", "padded"),
    [(T2I, ()), (TI2I, ()), (T2I, [(1, 3)]), (TI2I, [(0, 4)])],
    ids=["t2i", "ti2i-two-references", "t2i-padded", "ti2i-padded"],
)
def test_forward_and_gradients_equal_diffusers(pair, layout, padded):
    ours, theirs = pair
    arguments = inputs(layout, padded=padded)
    mine, reference = ours(**arguments), diffusers_forward(theirs, arguments)
    assert reference.std() > 0.1  # the comparison sees something
    assert (mine - reference).abs().max() <= TOLERANCE

    ours.zero_grad()
    theirs.zero_grad()
    mine.square().mean().backward()
    reference.square().mean().backward()
    gradients = to_diffusers({name: p.grad for name, p in ours.named_parameters()}, CONFIG)
    for name, parameter in theirs.named_parameters():
        assert (gradients[name] - parameter.grad).abs().max() <= TOLERANCE, name


@pytest.mark.parametrize("layout", [T2I, TI2I])
def test_text_and_references_change_the_output(pair, layout):
    ours, _ = pair
    arguments = inputs(layout)
    base = ours(**arguments)
    names = ["text_BLK"] + (["references_BRC"] if arguments["references_BRC"] is not None else [])
    for name in names:
        assert (ours(**{**arguments, name: arguments[name].flip(0)}) - base).abs().max() > 1e-3


def test_real_condition_time_equals_diffusers():
    declare_operators()
    from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21Transformer2DModel

    config = MMDiTConfig(**{**CONFIG.to_dict(), "condition_time": "real"})
    ours = strong(config.build())
    theirs = QwenImage21Transformer2DModel(**diffusers_config(config))
    theirs.load_state_dict(to_diffusers(ours.state_dict(), config))
    arguments = inputs(TI2I, padded=[(1, 2)])
    assert (ours(**arguments) - diffusers_forward(theirs, arguments)).abs().max() <= TOLERANCE


@pytest.mark.parametrize(("layout", "padded"), [(T2I, [(1, 3)]), (TI2I, [(0, 4)])])
def test_cached_prefix_equals_the_joint_stream(layout, padded):
    model = strong(CONFIG.build())
    arguments = inputs(layout, padded=padded)
    prefix = model.prefill(arguments["text_BLK"], layout, arguments["references_BRC"], arguments["text_valid_BL"])
    for scale in (1.0, 0.3):  # one prefix serves every denoising step
        step = {**arguments, "t_B": arguments["t_B"] * scale, "latents_BNC": arguments["latents_BNC"] * scale}
        cached = model.decode(step["latents_BNC"], step["t_B"], prefix)
        assert (cached - model(**step)).abs().max() <= TOLERANCE


def test_one_row_prefix_serves_a_batch():
    model = strong(CONFIG.build())
    arguments = inputs(T2I)
    prefix = model.prefill(arguments["text_BLK"][:1], T2I)
    shared = model.decode(arguments["latents_BNC"], arguments["t_B"], prefix)
    repeated = model(**{**arguments, "text_BLK": arguments["text_BLK"][:1].expand(2, -1, -1)})
    assert (shared - repeated).abs().max() <= TOLERANCE


@pytest.mark.parametrize("attention", ["block_causal", "full"])
@pytest.mark.parametrize("condition_time", ["zero", "real"])
@pytest.mark.parametrize("modulation", ["shared", "per_block"])
def test_every_weight_gets_a_gradient_under_every_switch(attention, condition_time, modulation):
    changes = {"attention": attention, "condition_time": condition_time, "modulation": modulation}
    model = strong(MMDiTConfig(**{**CONFIG.to_dict(), **changes}).build())
    model(**inputs(TI2I, padded=[(0, 2)])).square().mean().backward()
    empty = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert empty == []


def test_grid_positions_are_distinct_parameter_free_and_not_exported():
    arguments = inputs(T2I)
    plain = strong(CONFIG.build())
    placed = strong(MMDiTConfig(**{**CONFIG.to_dict(), "grid": 0.7}).build())
    assert sum(p.numel() for p in placed.parameters()) == sum(p.numel() for p in plain.parameters())
    assert (placed(**arguments) - plain(**arguments)).abs().max() > 1e-2
    features = grid_features(6, 4, 128)
    assert features.shape == (24, 128) and torch.allclose(features.square().mean(1), torch.full((24,), 0.5), atol=1e-5)
    assert torch.cdist(features, features).add(torch.eye(24) * 9).min() > 0.5  # every place has features of its own
    with pytest.raises(ValueError, match="no grid positions"):
        diffusers_config(placed.config)


def test_padding_does_not_reach_the_output():
    model = strong(CONFIG.build())
    for attention in ("block_causal", "full"):
        model = strong(MMDiTConfig(**{**CONFIG.to_dict(), "attention": attention}).build())
        arguments = inputs(T2I, padded=[(1, 3)])
        changed = arguments["text_BLK"].clone()
        changed[1, -3:] += 5.0
        assert torch.equal(model(**arguments), model(**{**arguments, "text_BLK": changed}))


def test_published_size():
    with torch.device("meta"):
        model = preset("qwen-image-2.1").build()
    assert round(sum(p.numel() for p in model.parameters()) / 1e9, 3) == 7.115


def test_layout_mismatch_and_bad_switches_are_named():
    model = CONFIG.build()
    with pytest.raises(ValueError, match="layout .* asks for 8 text"):
        model(**{**inputs(T2I), "layout": (8, (6, 4))})
    with pytest.raises(ValueError, match="attention is 'sparse'"):
        MMDiTConfig(**{**CONFIG.to_dict(), "attention": "sparse"})
    with pytest.raises(ValueError, match="prefix can be kept only"):
        MMDiTConfig(**{**CONFIG.to_dict(), "attention": "full"}).build().prefill(torch.zeros(1, 7, 64), T2I)
