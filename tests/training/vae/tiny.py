"""Pictures and a small recipe for the tests of VAEs."""

from __future__ import annotations

import torch

from training.vae.training import VAERecipe

SMALL = VAERecipe(
    channels=8, width=8, decoder_width=8, side=32, batch=2, steps=4, checkpoint_every=2, learning_rate=5e-3, warmup=2
)


def wave_pictures() -> torch.Tensor:
    """Three pictures of waves, uint8 [3, 3, 48, 40]."""
    rows = torch.arange(48)[:, None].float()
    waves = [127 + 120 * torch.sin(rows * f + torch.arange(40) * g) for f, g in ((0.1, 0.2), (0.3, 0.05), (0.02, 0.4))]
    return torch.stack([torch.stack([w, w.flip(0), w.flip(1)]) for w in waves]).to(torch.uint8)
