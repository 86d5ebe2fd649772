"""Features see what is in a picture."""

from __future__ import annotations

import pytest

from tests.training.vae.tiny import wave_pictures
from training.losses.vae import perceptual_loss
from training.models.features import Features


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
