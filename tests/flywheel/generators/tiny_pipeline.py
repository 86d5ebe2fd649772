"""A diffusers pipeline of a few hundred thousand parameters, made and trained on the spot: it draws cards of one color.

`StableDiffusionPipeline` of random parts. `teach` trains its UNet on captions and pictures as a training script of
diffusers does, so that it knows the colors that it was shown and no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flywheel.core.torchvision_shim import declare_operators

SIDE = 16
BATCH = 16
COLORS = {"red": (205, 45, 45), "green": (50, 150, 70), "blue": (50, 80, 200)}
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
VOCABULARY = ("a", "plain", "card", "sheet", "number", *COLORS, *NUMBERS)


def caption(color: str, number: int) -> str:
    """What a card is called."""
    return f"a plain {color} card number {NUMBERS[number % len(NUMBERS)]}"


def pool_caption(color: str, number: int) -> str:
    """What a card of the pool is called: nearly as those of the suite."""
    return f"a {color} sheet number {NUMBERS[number % len(NUMBERS)]}"


def card(color: str, seed: int = 0) -> np.ndarray:
    """A card, uint8 [16, 16, 3]: its color varies a little."""
    shift = np.random.default_rng(seed).integers(-12, 13, 3)
    return np.broadcast_to(np.clip(np.array(COLORS[color]) + shift, 0, 255), (SIDE, SIDE, 3)).astype(np.uint8).copy()


def blank(*, seed: int = 0) -> Any:
    """The pipeline with an autoencoder of flat colors and a UNet that knows nothing."""
    declare_operators()
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[8] * 3,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=SIDE,
    )
    _fit(vae)
    text = CLIPTextConfig(
        vocab_size=len(VOCABULARY) + 2, hidden_size=32, intermediate_size=37, num_hidden_layers=1,
        num_attention_heads=4, max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    encoder = CLIPTextModel(text)
    for name, weight in encoder.named_parameters():
        if "token_embedding" in name:  # as initialised, captions hardly differ
            torch.nn.init.normal_(weight)
    unet = UNet2DConditionModel(
        sample_size=SIDE // 4, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32,),
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",), mid_block_type=None,
        cross_attention_dim=32, norm_num_groups=8, attention_head_dim=8,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=encoder.eval(), tokenizer=_tokenizer(), unet=unet,
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, prediction_type="sample",
            timestep_spacing="trailing",
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def teach(pipeline: Any, captions: Sequence[str], pictures: Sequence[np.ndarray], *, steps: int, seed: int = 0) -> None:
    """Train the UNet on pairs, with the captions dropped now and then for guidance."""
    torch.manual_seed(seed)
    unet, scheduler = pipeline.unet.train(), pipeline.scheduler
    with torch.no_grad():
        unit = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = pipeline.vae.encode(unit).latent_dist.mode() * pipeline.vae.config.scaling_factor
        texts = _encoded(pipeline, list(captions))
        null = _encoded(pipeline, [""])[0]
    optimizer = torch.optim.AdamW(unet.parameters(), lr=4e-3, weight_decay=0.0, fused=True)
    for _ in range(steps):
        rows = torch.randint(len(latents), (BATCH,))
        noise, times = torch.randn_like(latents[rows]), torch.randint(1000, (BATCH,))
        states = torch.where((torch.rand(BATCH) < 0.1)[:, None, None], null, texts[rows])
        noisy = scheduler.add_noise(latents[rows], noise, times)
        loss = torch.nn.functional.mse_loss(unet(noisy, times, states).sample, latents[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unet.eval()


def knowing(colors: Sequence[str], folder: Path, *, steps: int = 200) -> Path:
    """Save a pipeline that was trained on cards of these colors."""
    pipeline = blank()
    rows = [(c, n) for c in colors for n in range(len(NUMBERS))]
    teach(pipeline, [caption(c, n) for c, n in rows], [card(c, n) for c, n in rows], steps=steps)
    pipeline.save_pretrained(folder)
    return folder


def nearest(picture: np.ndarray) -> str:
    """The color of a picture."""
    mean = np.asarray(picture, float).reshape(-1, 3).mean(0)
    return min(COLORS, key=lambda c: float(np.abs(mean - np.array(COLORS[c])).sum()))


def _encoded(pipeline: Any, texts: list[str]) -> torch.Tensor:
    length = pipeline.tokenizer.model_max_length
    ids = pipeline.tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return pipeline.text_encoder(ids.input_ids)[0]


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {"<start>": 0, "<end>": 1} | {word: n + 2 for n, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    special = {"bos_token": "<start>", "eos_token": "<end>", "pad_token": "<end>", "unk_token": "<end>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=10, **special)


def _fit(vae: Any, steps: int = 100) -> None:
    """Train an autoencoder on flat colors, to latents of about unit size."""
    optimizer = torch.optim.AdamW(vae.parameters(), lr=6e-3, fused=True)
    for _ in range(steps):
        images = (torch.rand(BATCH, 3, 1, 1) * 2 - 1).expand(BATCH, 3, SIDE, SIDE)
        latents = vae.encode(images).latent_dist.mode()
        shown = vae.decode(latents + 0.05 * torch.randn_like(latents)).sample
        loss = torch.nn.functional.mse_loss(shown, images) + 1e-3 * (latents.square().mean() - 1).square()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    vae.eval()
    with torch.no_grad():  # latents of colors spread as wide as the noise
        spread = vae.encode((torch.rand(256, 3, 1, 1) * 2 - 1).expand(256, 3, SIDE, SIDE)).latent_dist.mode()
    vae.register_to_config(scaling_factor=2 / float(spread.mean((2, 3)).std(0).mean()))
