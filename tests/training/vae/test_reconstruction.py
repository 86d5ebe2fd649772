"""SSIM against OpenCV's and by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from training.data.row_group import to_unit
from training.models.autoencoder import PatchAutoencoder, fit
from training.vae.reconstruction import parameters, reconstruction, ssim


@pytest.fixture
def pictures() -> torch.Tensor:
    """A smooth picture and a noisy one, uint8 [2, 3, 48, 40]."""
    y, x = torch.meshgrid(torch.arange(48), torch.arange(40), indexing="ij")
    smooth = torch.stack([4 * x, 5 * y, 2 * x + y]).to(torch.uint8)
    noisy = torch.randint(0, 256, (3, 48, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return torch.stack([smooth, noisy])


def test_ssim_equals_opencv_inside_the_border(pictures):
    noise = torch.randint(-40, 41, pictures.shape, generator=torch.Generator().manual_seed(1))
    changed = (pictures.int() + noise).clamp(0, 255).to(torch.uint8)
    mine = ssim(to_unit(pictures), to_unit(changed))
    for a, b, value in zip(pictures, changed, mine, strict=True):
        _, quality = cv2.quality.QualitySSIM_compute(*(x.permute(1, 2, 0).contiguous().numpy() for x in (a, b)))
        assert abs(np.asarray(quality)[5:-5, 5:-5].mean() - float(value)) < 1e-4
    assert mine[0] < 0.9 < mine[1]  # the same noise hurts the smooth picture more


def test_ssim_by_hand(pictures):
    unit = to_unit(pictures)
    assert torch.allclose(ssim(unit, unit), torch.ones(2, dtype=torch.float64))
    flat = [torch.full((1, 3, 16, 16), value) for value in (-0.2, 0.6)]  # 0.4 and 0.8 from black to white
    assert float(ssim(*flat)) == pytest.approx((2 * 0.32 + 0.0001) / (0.16 + 0.64 + 0.0001), abs=1e-6)


def test_reconstruction_is_measured_on_eight_bit_pictures(pictures):
    unit = to_unit(pictures)
    lossless = fit([unit[:1]], channels=12, factor=2)
    assert isinstance(lossless, PatchAutoencoder) and parameters(lossless) == (144, 144)
    (psnr, similarity), _ = reconstruction(lossless, pictures)
    assert psnr > 100 and similarity > 0.9999  # every component kept: equal after rounding
    (smooth, _), (noisy, _) = reconstruction(fit([unit], channels=3, factor=2), pictures)
    assert noisy < 15 < smooth
