"""Tiny random models of the published architectures, made on the spot: nothing is downloaded."""

from __future__ import annotations

import torch

from training.torchvision_shim import declare_operators


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
