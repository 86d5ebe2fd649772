"""Our MMDiT's weights to and from diffusers' `QwenImage21Transformer2DModel`: names, fusion, rotary pairing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from training.models.mmdit import MMDiTConfig

_PLAIN = {
    "image_in.weight": "img_in.weight",
    "text_in.norm": "txt_in.text_norm.weight",
    "text_in.inner.weight": "txt_in.in_layer.weight",
    "text_in.outer.weight": "txt_in.out_layer.weight",
    "time_in.inner.weight": "time_text_embed.timestep_embedder.linear_1.weight",
    "time_in.outer.weight": "time_text_embed.timestep_embedder.linear_2.weight",
    "modulation.linear.weight": "modulation.1.weight",
    "scale_out.linear.weight": "norm_out.linear.weight",
    "image_out.weight": "proj_out.weight",
}


def diffusers_config(config: MMDiTConfig) -> dict[str, Any]:
    """Keyword arguments of `QwenImage21Transformer2DModel`. Errors: `ValueError` for switches it does not have."""
    if config.attention != "block_causal" or config.modulation != "shared" or config.grid:
        raise ValueError("diffusers' model has block-causal attention, one shared modulation and no grid positions")
    if config.rope_theta != 10_000:
        raise ValueError("diffusers' model has rope_theta 10000")
    return {
        "patch_size": 1,
        "in_channels": config.channels,
        "out_channels": config.channels,
        "num_layers": config.depth,
        "attention_head_dim": config.head_dim,
        "num_attention_heads": config.heads,
        "context_in_dim": config.condition_dim,
        "mlp_ratio": config.mlp_ratio,
        "axes_dims_rope": config.rope_axes,
        "eps": config.eps,
        "causal_condition": config.condition_time == "zero",
    }


def from_diffusers_config(values: Mapping[str, Any]) -> MMDiTConfig:
    """The inverse of `diffusers_config`. Errors: `ValueError` for a patch size other than 1."""
    if values["patch_size"] != 1 or values["out_channels"] not in (None, values["in_channels"]):
        raise ValueError("only patch_size 1 with as many output as input channels can be converted")
    return MMDiTConfig(
        channels=values["in_channels"],
        condition_dim=values["context_in_dim"],
        depth=values["num_layers"],
        heads=values["num_attention_heads"],
        head_dim=values["attention_head_dim"],
        mlp_ratio=values["mlp_ratio"],
        rope_axes=tuple(values["axes_dims_rope"]),
        eps=values["eps"],
        condition_time="zero" if values["causal_condition"] else "real",
    )


def to_diffusers(state: Mapping[str, Tensor], config: MMDiTConfig) -> dict[str, Tensor]:
    """Our state dict under diffusers' names. Also maps gradients, which share the weights' shapes."""
    out = {theirs: state[ours] for ours, theirs in _PLAIN.items()}
    for i in range(config.depth):
        ours, theirs = f"blocks.{i}.", f"transformer_blocks.{i}."
        for layer in ("qkv", "attention_out", "gate_up", "down"):
            parts = split_rows(layer, state[f"{ours}{layer}.weight"], config.head_dim)
            out |= {f"{theirs}{name}.weight": rows for name, rows in parts.items()}
        out |= {
            theirs + "attn.norm_q.weight": _interleave(state[ours + "query_norm"], config.head_dim),
            theirs + "attn.norm_k.weight": _interleave(state[ours + "key_norm"], config.head_dim),
        }
    return {name: tensor.contiguous() for name, tensor in out.items()}


def split_rows(layer: str, rows: Tensor, head_dim: int) -> dict[str, Tensor]:
    """Rows of a block's layer by diffusers' layers: of its weight, or of an adapter's B."""
    if layer == "qkv":
        q, k, v = rows.chunk(3)
        return {"attn.to_q": _interleave(q, head_dim), "attn.to_k": _interleave(k, head_dim), "attn.to_v": v}
    if layer == "gate_up":
        gate, up = rows.chunk(2)
        return {"img_mlp.gate_layer": gate, "img_mlp.proj": up}
    return {{"attention_out": "attn.to_out.0", "down": "img_mlp.out"}[layer]: rows}


def from_diffusers(state: Mapping[str, Tensor], config: MMDiTConfig) -> dict[str, Tensor]:
    """The inverse of `to_diffusers`."""
    return {ours: make([state[name] for name in theirs]) for ours, (theirs, make) in sources_of(config).items()}


def sources_of(config: MMDiTConfig) -> dict[str, tuple[tuple[str, ...], Callable[[Sequence[Tensor]], Tensor]]]:
    """{our name: (diffusers' names, function of their tensors)}, so that weights can be converted one by one."""
    e = config.head_dim
    out: dict[str, tuple[tuple[str, ...], Callable[[Sequence[Tensor]], Tensor]]] = {
        ours: ((theirs,), _same) for ours, theirs in _PLAIN.items()
    }
    for i in range(config.depth):
        ours, theirs = f"blocks.{i}.", f"transformer_blocks.{i}."
        qkv = tuple(f"{theirs}attn.to_{x}.weight" for x in "qkv")
        norms = {"query_norm": f"{theirs}attn.norm_q.weight", "key_norm": f"{theirs}attn.norm_k.weight"}
        gate_up = (theirs + "img_mlp.gate_layer.weight", theirs + "img_mlp.proj.weight")
        out |= {
            ours + "qkv.weight": (qkv, lambda x: torch.cat([_deinterleave(x[0], e), _deinterleave(x[1], e), x[2]])),
            **{ours + k: ((name,), lambda x: _deinterleave(x[0], e)) for k, name in norms.items()},
            ours + "attention_out.weight": ((theirs + "attn.to_out.0.weight",), _same),
            ours + "gate_up.weight": (gate_up, lambda x: torch.cat(list(x))),
            ours + "down.weight": ((theirs + "img_mlp.out.weight",), _same),
        }
    return out


def _same(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0]


def _interleave(rows: Tensor, head_dim: int) -> Tensor:
    """Per head, rows (i, i + E/2) → (2i, 2i + 1): we rotate halves, diffusers rotates neighbours."""
    return rows.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


def _deinterleave(rows: Tensor, head_dim: int) -> Tensor:
    return rows.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)
