"""`flywheel evaluate vae`: a table row per autoencoder; what is left out is said."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flywheel.core.errors import UsageError
from flywheel.signals.vae_quality import evaluate, load_photographs
from tests.training.tiny_models import tiny_qwen_vae
from training.data.row_group import to_unit
from training.models.autoencoder import fit


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i in range(3):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((96, 72), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    Image.new("RGB", (40, 90)).save(folder / "small.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def checkpoint(photographs, tmp_path_factory):
    """What matters of a checkpoint here: its autoencoder."""
    folder = tmp_path_factory.mktemp("checkpoint")
    images = to_unit(load_photographs(photographs, side=64).images)
    fit([images], channels=24, factor=8).save(folder / "autoencoder.safetensors")
    return folder


def test_photographs_are_cut_square_and_what_is_left_out_is_said(photographs):
    loaded = load_photographs(photographs, side=64)
    assert loaded.images.shape == (3, 3, 64, 64)
    assert loaded.left_out.keys() == {"small.png", "broken.jpg"}
    assert "40x90 is smaller than 64" in loaded.left_out["small.png"]
    assert len(load_photographs(photographs, side=64, count=2).images) == 2
    with pytest.raises(UsageError, match="no image of at least 256 pixels"):
        load_photographs(photographs)


def test_one_row_per_autoencoder(photographs, checkpoint, tmp_path):
    tiny_qwen_vae().save_pretrained(tmp_path / "pipeline" / "vae")
    pictures = load_photographs(photographs, side=64)
    patch, vae = evaluate([str(checkpoint), str(tmp_path / "pipeline")], pictures, side=64, texts=3)
    assert (patch["layout"], vae["layout"]) == ("f8c24", "f16c16")
    assert patch["encoder_parameters"] == 192 * 24 and vae["decoder_parameters"] > vae["encoder_parameters"] > 10_000
    assert patch["photographs_images"] == patch["text_images"] == 3
    assert patch["photographs_psnr"] > 25 > patch["text_psnr"] > vae["text_psnr"]  # fitted on these photographs
    assert 1 > patch["photographs_ssim"] > patch["text_ssim"] > 0
    with pytest.raises(UsageError, match="needs a multiple of 16"):
        evaluate([str(tmp_path / "pipeline")], pictures, side=72)
