"""Autoencoders: images ↔ latents. `PatchAutoencoder` is linear and fitted in closed form: PCA of image patches."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from flywheel.core.files import write_bytes
from training.models.pretrained import require_finite_weights


class Autoencoder(Protocol):
    """Encodes images to latents and decodes them."""

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        ...

    @property
    def factor(self) -> int:
        """Pixels per latent pixel, per side."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights: latents of different fingerprints must not be mixed."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Images in [-1, 1], [B, 3, H, W] → latents [B, channels, H/factor, W/factor], about unit variance."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents → images in [-1, 1], [B, 3, H, W]."""
        ...

    def to(self, device: torch.device) -> Self:
        """Compute on `device`; returns itself. Images and latents stay on the caller's device."""
        ...

    def save(self, path: Path) -> None:
        """Write everything that `load_autoencoder` needs as one safetensors file."""
        ...


@dataclass(frozen=True)
class PatchAutoencoder:
    """Linear: each `factor`×`factor` patch (P = 3·factor² values) projected on its principal components.

    `mean` [P], `basis` [P, channels] orthonormal columns, `scale` [channels] the components' standard deviations.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor

    @property
    def channels(self) -> int:
        """Latent channels."""
        return self.basis.shape[1]

    @property
    def factor(self) -> int:
        """Pixels per latent pixel, per side."""
        return round((self.basis.shape[0] / 3) ** 0.5)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights: latents of different fingerprints must not be mixed."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def encode(self, images: Tensor) -> Tensor:
        """Images in [-1, 1], [B, 3, H, W] → latents [B, C, H/f, W/f]. Errors: `ValueError` for other sizes."""
        if images.shape[-1] % self.factor or images.shape[-2] % self.factor:
            raise ValueError(f"image sides {tuple(images.shape[-2:])} must be multiples of {self.factor}")
        patches = F.pixel_unshuffle(images, self.factor).movedim(1, -1)
        return (((patches - self.mean) @ self.basis) / self.scale).movedim(-1, 1).contiguous()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] → images [B, 3, h·f, w·f], clipped to [-1, 1]."""
        patches = (latents.movedim(1, -1) * self.scale) @ self.basis.T + self.mean
        return F.pixel_shuffle(patches.movedim(-1, 1), self.factor).clamp(-1, 1)

    def to(self, device: torch.device) -> Self:
        """Stays on the CPU: two products are not worth a transfer to a GPU."""
        return self

    def to_bytes(self) -> bytes:
        """As safetensors."""
        return save({"mean": self.mean, "basis": self.basis, "scale": self.scale})

    def save(self, path: Path) -> None:
        """Write as safetensors, atomically."""
        write_bytes(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> PatchAutoencoder:
        """Read what `save` wrote. Errors: `UsageError` if a value is not finite."""
        require_finite_weights(path, (values := load_file(path)).items())
        return cls(**values)


def load_autoencoder(path: Path) -> Autoencoder:
    """Read what an autoencoder's `save` wrote, of either kind."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    from training.models.vae import METADATA, VAE

    return VAE.load(path) if METADATA in metadata else PatchAutoencoder.load(path)


def fit(images: list[Tensor], *, channels: int, factor: int) -> PatchAutoencoder:
    """Principal components of all patches of `images` (in [-1, 1], [B, 3, H, W] each): deterministic, closed form.

    Errors: `ValueError` when there are more channels than values in a patch.
    """
    size = 3 * factor * factor
    if channels > size:
        raise ValueError(f"{channels} channels for patches of {size} values: use at most {size}")
    patches = torch.cat([F.pixel_unshuffle(x.double(), factor).movedim(1, -1).reshape(-1, size) for x in images])
    mean = patches.mean(0)
    centred = patches - mean
    variance, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    basis = vectors.flip(1)[:, :channels]
    # An eigenvector's sign is arbitrary: make its largest entry positive, so that every build of LAPACK agrees.
    basis = basis * basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    # The floor (one grey level in 8-bit images) keeps directions without content from being scaled up to noise.
    scale = variance.flip(0)[:channels].clamp(min=0).sqrt().clamp(min=1 / 128)
    return PatchAutoencoder(mean.float(), basis.float().contiguous(), scale.float())


def psnr(images: Tensor, reconstructed: Tensor) -> Tensor:
    """Peak signal-to-noise ratio per image, dB [B]; both in [-1, 1] (peak 2)."""
    error = (images - reconstructed).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error.clamp(min=1e-12))
