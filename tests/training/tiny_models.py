"""Tiny random models of the published architectures, made on the spot: nothing is downloaded."""

from __future__ import annotations

import torch

from flywheel.core.torchvision_shim import declare_operators


def randomised(model: torch.nn.Module, std: float = 0.05, seed: int = 0) -> torch.nn.Module:
    """Weights of a size at which every input matters: on default weights many comparisons are nearly blind."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator) * std
            weight.copy_(noise + 1 if "norm" in name and weight.dim() == 1 else noise)
    return model.eval()


def tiny_qwen_vae(*, seed: int = 0, channels: int = 16) -> torch.nn.Module:
    """`AutoencoderKLQwenImage21`, f16, 0.6 M parameters, four pixel channels."""
    declare_operators()
    from diffusers import AutoencoderKLQwenImage21

    model = AutoencoderKLQwenImage21(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=channels,
        num_res_blocks=1,
        latents_mean=[0.1 * i for i in range(channels)],
        latents_std=[0.5 + 0.1 * i for i in range(channels)],
    )
    return randomised(model, std=0.1, seed=seed)


def tiny_kl_vae() -> torch.nn.Module:
    """`AutoencoderKL` with a shift and a scale, f8 with four channels, as older image models have."""
    declare_operators()
    from diffusers import AutoencoderKL

    model = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[8] * 4,
        norm_num_groups=4,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    )
    return randomised(model)


SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<|video_pad|>")  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{{ c.text }}{% endfor %}<|im_end|>\n"
    "{% endfor %}"
)
CORPUS = ["Comprehend and analyze the provided prompt.", "system user assistant <image1> a red disc at the left"]


def tiny_processor() -> object:
    """`Qwen3VLProcessor` around a byte-level BPE trained in memory; a slot stands for 32×32 pixels, as published."""
    declare_operators()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=SPECIAL[0], eos_token="<|im_end|>", additional_special_tokens=list(SPECIAL[1:])
    )
    size = {"shortest_edge": 32 * 32, "longest_edge": 512 * 512}
    images = Qwen2VLImageProcessor(patch_size=16, merge_size=2, size=size)
    videos = Qwen3VLVideoProcessor(patch_size=16, merge_size=2, size=size)
    return Qwen3VLProcessor(images, tokenizer, videos, chat_template=TEMPLATE)


def tiny_qwen3vl(processor: object, *, seed: int = 0) -> torch.nn.Module:
    """`Qwen3VLForConditionalGeneration` with two text layers of 64 and one vision layer, 0.25 M parameters."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    ids = dict(zip(SPECIAL, processor.tokenizer.convert_tokens_to_ids(list(SPECIAL)), strict=True))
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": 16,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    return randomised(Qwen3VLForConditionalGeneration(config), std=0.1, seed=seed)
