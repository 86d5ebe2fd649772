"""Adapts VAEs of diffusers to `Autoencoder`, above all `AutoencoderKLQwenImage21`, f16 with 64 channels."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from flywheel.core.errors import UsageError, first_line
from flywheel.core.files import write_bytes
from flywheel.core.torchvision_shim import declare_operators
from training.models.pretrained import locate, require_finite_weights, weights_digest

METADATA = "vae"  # metadata that distinguishes a saved VAE from a patch autoencoder
PIXELS_AT_ONCE = 1 << 20  # bounds the memory of one call; a larger image is processed alone


class VAE:
    """A frozen diffusers VAE. Latents are the posterior's mode, brought to unit variance by the model's own numbers:
    per channel (z − latents_mean)/latents_std, or (z − shift_factor)·scaling_factor.

    A video VAE gets each image as one frame. A VAE with an alpha channel gets opaque images, and its decoded images are
    composited over white.
    """

    def __init__(self, model: Any) -> None:  # diffusers' VAEs have no common base that declares `encode`
        self.model = model.eval().requires_grad_(False)
        config = self.model.config
        self._frames = "temperal_downsample" in config  # diffusers' spelling
        channels = config.get("in_channels", config.get("input_channels", 3))
        self._alpha = channels in (4, 4 * (config.get("patch_size") or 1) ** 2)  # counted per pixel, or per block
        if config.get("latents_mean") is not None:
            shape = (-1, 1, 1)
            self._mean = torch.tensor(config["latents_mean"], dtype=torch.float32).view(shape)
            self._std = torch.tensor(config["latents_std"], dtype=torch.float32).view(shape)
        else:
            self._mean = torch.tensor(float(config.get("shift_factor") or 0.0))
            self._std = torch.tensor(1 / float(config.get("scaling_factor") or 1.0))

    @classmethod
    def open(cls, name: str) -> VAE:
        """From a folder, a pipeline's folder or a hub tag. Errors: `UsageError` if it cannot be opened as a VAE."""
        declare_operators()
        import diffusers

        folder = locate(name, "vae")
        try:
            kind = json.loads((folder / "config.json").read_text())["_class_name"]
            model = _model_class(kind).from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            reason = first_line(error)
            raise UsageError(
                f"diffusers {diffusers.__version__} cannot open {name} as a VAE ({reason}): give another folder or tag"
            ) from error
        require_finite_weights(folder, model.state_dict().items())
        return cls(model)

    @cached_property
    def channels(self) -> int:
        """Channels of a latent."""
        return self._probe[0]

    @cached_property
    def factor(self) -> int:
        """Pixels per latent pixel, per side."""
        return self._probe[1]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of class, configuration and weights: latents of different fingerprints must not be mixed."""
        return weights_digest(self.model, self._kind, json.dumps(self._config, sort_keys=True))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images in [-1, 1], [B, 3, H, W] → latents [B, C, H/f, W/f]. Errors: `ValueError` for other sizes."""
        if images.shape[-1] % self.factor or images.shape[-2] % self.factor:
            raise ValueError(f"image sides {tuple(images.shape[-2:])} must be multiples of {self.factor}")
        return torch.cat([self._encode(part) for part in _parts(images, images.shape[-2] * images.shape[-1])])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] → images [B, 3, h·f, w·f], clipped to [-1, 1]."""
        return torch.cat([self._decode(part) for part in _parts(latents, latents[0, 0].numel() * self.factor**2)])

    def to(self, device: torch.device) -> Self:
        """Compute on `device`; returns itself."""
        self.model.to(device)
        return self

    def save(self, path: Path) -> None:
        """Write weights and configuration as one safetensors file, atomically."""
        weights = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        described = json.dumps({"class": self._kind, "config": self._config}, sort_keys=True)
        write_bytes(path, save(weights, {METADATA: described}))  # one entry, because the order of several is undefined

    @classmethod
    def load(cls, path: Path) -> VAE:
        """Read what `save` wrote. Errors: `UsageError` if a weight is not finite."""
        declare_operators()
        with safe_open(path, "pt") as file:
            described = json.loads(file.metadata()[METADATA])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        require_finite_weights(path, weights.items())
        model = _model_class(described["class"]).from_config(described["config"])
        dtype = next(iter(weights.values())).dtype
        model = model if model.dtype == dtype else model.to(dtype)
        model.load_state_dict(weights)
        return cls(model)

    @property
    def _kind(self) -> str:
        return type(self.model).__name__

    @property
    def _config(self) -> dict[str, Any]:
        """What defines the model: not where it was loaded from, nor the version that wrote it."""
        return {k: v for k, v in dict(self.model.config).items() if not k.startswith("_")}

    @cached_property
    def _probe(self) -> tuple[int, int]:
        """(channels, factor), measured on a black square, because configurations of VAEs name them differently."""
        side = 64
        latents = self._encode(torch.zeros(1, 3, side, side))
        return latents.shape[1], side // latents.shape[-1]

    def _encode(self, images: Tensor) -> Tensor:
        x = torch.cat([images, torch.ones_like(images[:, :1])], dim=1) if self._alpha else images
        x = x.to(self.model.device, self.model.dtype)
        out = self.model.encode(x.unsqueeze(2) if self._frames else x)
        if hasattr(out, "latent_dist"):
            z = out.latent_dist.mode()
        else:
            z = out.latent if hasattr(out, "latent") else out.latents
        z = (z.squeeze(2) if self._frames else z).to(images.device, torch.float32)
        return (z - self._mean.to(z)) / self._std.to(z)

    def _decode(self, latents: Tensor) -> Tensor:
        z = latents * self._std.to(latents) + self._mean.to(latents)
        z = z.to(self.model.device, self.model.dtype)
        out = self.model.decode(z.unsqueeze(2) if self._frames else z).sample
        out = (out.squeeze(2) if self._frames else out).to(latents.device, torch.float32).clamp(-1, 1)
        if self._alpha:
            alpha = (out[:, 3:] + 1) / 2
            out = out[:, :3] * alpha + (1 - alpha)
        return out


def _parts(x: Tensor, pixels: int) -> tuple[Tensor, ...]:
    return x.split(max(1, PIXELS_AT_ONCE // pixels))


def _model_class(kind: str) -> Any:
    import diffusers

    vae_class = getattr(diffusers, kind, None) if kind.startswith(("Autoencoder", "AsymmetricAutoencoder")) else None
    if vae_class is None:
        raise ValueError(f"unknown class {kind}")
    return vae_class
