"""all-MiniLM-L6-v2's layers in PyTorch's own transformer encoder.

Transformers has the same model (the tests compare both), but importing it takes every process six CPU-seconds.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class MiniLMLayers(nn.Module):
    """A BERT encoder from a folder with `config.json` and `model.safetensors`; frozen."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        config = json.loads((folder / "config.json").read_text())
        weights = load_file(folder / "model.safetensors")
        width, epsilon = config["hidden_size"], config["layer_norm_eps"]
        self.words = nn.Embedding.from_pretrained(weights["embeddings.word_embeddings.weight"])
        kind = weights["embeddings.token_type_embeddings.weight"][0]  # of the first of two sentences: there is only one
        self.places = nn.Embedding.from_pretrained(weights["embeddings.position_embeddings.weight"] + kind)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.norm.load_state_dict(_part(weights, "embeddings.LayerNorm"))
        with torch.device("meta"):  # without drawing random weights, which takes longer than reading the real ones
            self.layers = nn.ModuleList(
                nn.TransformerEncoderLayer(
                    width,
                    config["num_attention_heads"],
                    config["intermediate_size"],
                    activation=config["hidden_act"],
                    layer_norm_eps=epsilon,
                    batch_first=True,
                )
                for _ in range(config["num_hidden_layers"])
            )
        for n, layer in enumerate(self.layers):
            layer.load_state_dict(_layer(weights, f"encoder.layer.{n}"), assign=True)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, ids: Tensor, padding: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """First and last layer's states, [B, L, width] each, of token ids [B, L]; padding: bool, true at fill."""
        states = self.norm(self.words(ids) + self.places.weight[: ids.shape[1]])
        first = states = self.layers[0](states, src_key_padding_mask=padding)
        for layer in list(self.layers)[1:]:
            states = layer(states, src_key_padding_mask=padding)
        return first, states


def _layer(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """One layer's weights by PyTorch's names; its attention has queries, keys and values in one matrix."""
    parts = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    out = {f"{ours}.{k}": v for ours, theirs in parts.items() for k, v in _part(weights, f"{name}.{theirs}").items()}
    for kind in ("weight", "bias"):
        each = [weights[f"{name}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
        out[f"self_attn.in_proj_{kind}"] = torch.cat(each)
    return out


def _part(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {kind: weights[f"{name}.{kind}"] for kind in ("weight", "bias")}
