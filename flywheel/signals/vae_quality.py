"""Reconstruction quality of autoencoders on photographs and small text: the report's Table 1, on your own images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from flywheel.core.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from training.models.autoencoder import Autoencoder

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Photographs:
    """Square images, uint8 [N, 3, side, side], and the reason for each file that was left out."""

    images: Tensor
    left_out: dict[str, str]


def evaluate(
    models: Sequence[str], photographs: Photographs, *, side: int = 256, texts: int = 100, seed: int = 0
) -> list[dict[str, Any]]:
    """One row per model: layout (such as f16c64), parameters, mean PSNR in dB and SSIM on photographs and text pages.

    A model is the folder of a checkpoint, of a VAE or of a pipeline, or a hub tag. Errors: `UsageError`, before
    anything is measured.
    """
    from curation.synthesis.pages import pages
    from training.vae.reconstruction import parameters, reconstruction

    if texts < 1:
        raise UsageError(f"{texts} text pages: ask for at least one")
    opened = {name: open_autoencoder(name) for name in models}
    for name, model in opened.items():
        if side % model.factor:
            raise UsageError(f"side {side}: {name} needs a multiple of {model.factor}")
    sets = {"photographs": photographs.images, "text": _tensor(pages(texts, seed=seed, side=side))}
    rows = []
    for name, model in opened.items():
        encoder, decoder = parameters(model)
        row = {
            "model": name,
            "layout": f"f{model.factor}c{model.channels}",
            "encoder_parameters": encoder,
            "decoder_parameters": decoder,
        }
        for label, images in sets.items():
            psnr, ssim = zip(*reconstruction(model, images), strict=True)
            row |= {f"{label}_images": len(images), f"{label}_psnr": fmean(psnr), f"{label}_ssim": fmean(ssim)}
        rows.append(row)
    return rows


def open_autoencoder(name: str) -> Autoencoder:
    """The autoencoder of a checkpoint, or a VAE opened by diffusers. Errors: `UsageError`."""
    from training.models.autoencoder import load_autoencoder
    from training.models.vae import VAE

    inside = Path(name).expanduser() / "autoencoder.safetensors"
    return load_autoencoder(inside) if inside.is_file() else VAE.open(name)


def load_photographs(folder: Path, *, side: int = 256, count: int | None = None) -> Photographs:
    """The first `count` images of a folder by name: centre squares, reduced to `side` (Lanczos), never enlarged.

    Errors: `UsageError` if no image is large enough.
    """
    from PIL import Image, ImageOps

    from flywheel.core.image import BadImage, decode

    if not folder.is_dir():
        raise UsageError(f"--photographs {folder} is not a folder: give a folder of images")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    images: list[Image.Image] = []
    left_out: dict[str, str] = {}
    for path in files:
        if len(images) == count:
            break
        try:
            image = decode(path.read_bytes())
        except (OSError, BadImage) as error:
            left_out[str(path.relative_to(folder))] = str(error)
            continue
        if min(image.size) < side:
            left_out[str(path.relative_to(folder))] = f"{image.width}x{image.height} is smaller than {side}"
            continue
        images.append(ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS))
    if not images:
        raise UsageError(
            f"{folder} has no image of at least {side} pixels ({len(left_out)} left out): give another folder"
        )
    return Photographs(_tensor(images), left_out)


def _tensor(images: Iterable[Image.Image]) -> Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).contiguous()
