"""Features see what is in a picture."""

from __future__ import annotations

import pytest
import torch

from flywheel.core.errors import UsageError
from tests.training.vae.tiny import wave_pictures
from training.losses.vae import perceptual_loss
from training.models.features import Dinov2, Features


@pytest.fixture(scope="module")
def features():
    return Features()


@pytest.fixture(scope="module")
def pictures():
    return wave_pictures()


def test_features_see_what_is_in_a_picture_and_only_images_get_gradients(features, pictures):
    images = (pictures[:, :, :32, :32].float() / 127.5 - 1).requires_grad_()
    levels = features(images)
    assert [tuple(x.shape[1:]) for x in levels] == [(16, 16, 16), (24, 8, 8), (40, 4, 4), (112, 2, 2)]
    perceptual_loss(features(images.detach().flip(0)), levels).backward()
    assert images.grad.abs().sum() > 0 and not any(p.requires_grad for p in features.parameters())
    near, far = images.detach() + 0.02, images.detach().roll(1, 0)
    distance = [perceptual_loss(levels, features(x)).item() for x in (near, far)]
    assert distance[0] < distance[1] / 4


def test_a_dinov2_sees_each_place_at_its_place(dinov2, tmp_path):
    teacher = Dinov2(str(dinov2))
    images = torch.zeros(1, 3, 48, 64)
    images[:, :, 32:, :16] = 1.0  # the patch of the last row and the first column
    changed = (teacher(images) - teacher(torch.zeros(1, 3, 48, 64))).norm(dim=1)[0]
    assert changed.shape == (3, 4) and teacher.channels == 24
    assert changed.argmax().item() == 2 * 4 and not any(p.requires_grad for p in teacher.parameters())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="cannot be opened as a DINOv2"):
        Dinov2(str(tmp_path))
