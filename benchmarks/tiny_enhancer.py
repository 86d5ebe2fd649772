"""A causal language model small enough for a test or a benchmark: a random Qwen3 with a byte-level tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_tiny_enhancer(folder: Path, texts: Sequence[str], *, brief: bool = False) -> Path:
    """Write the model and its tokenizer, which is trained on `texts`; returns the folder.

    brief: half of its tokens end an answer, so that answers take a few tokens instead of the most that are allowed.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from flywheel.core.torchvision_shim import declare_operators

    declare_operators()
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=_SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=_TEMPLATE
    )
    config = Qwen3Config(
        vocab_size=len(wrapped), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=512, tie_word_embeddings=True,
        eos_token_id=wrapped.eos_token_id, pad_token_id=wrapped.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    if brief:
        model.generation_config.eos_token_id = list(range(wrapped.eos_token_id, len(wrapped), 2))
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder
